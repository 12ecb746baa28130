"""Is a refined video steady? The flow that the paper uses to judge randomized blending, and the jumps at chunk borders.

Compare both with the same numbers of the video before refinement: motion that changes its speed is not a fault.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from st2v_jax.metrics.flow import flow, flow_length
from st2v_jax.video_io import to_uint8


def flow_lengths(video: np.ndarray) -> np.ndarray:
    """Mean length [f - 1] of the flow between consecutive frames of a video [f, h, w, 3], in pixels."""
    if len(video) < 2:
        raise ValueError(f'flow needs at least two frames, got {len(video)}')
    with ThreadPoolExecutor() as pool:  # OpenCV releases the interpreter lock while it works
        return np.array(list(pool.map(lambda pair: flow_length(flow(*pair)), zip(video[:-1], video[1:]))))


def frame_changes(video: np.ndarray) -> np.ndarray:
    """Mean absolute difference [f - 1] of consecutive frames of a video [f, h, w, 3], in grey values of 0..255."""
    frames = to_uint8(np.asarray(video)).astype(np.float32)
    return np.array([np.abs(a - b).mean() for a, b in zip(frames[:-1], frames[1:])])


def border_ratio(changes: np.ndarray, borders: np.ndarray) -> float:
    """Mean of changes [f - 1] where chunks are joined, divided by their mean elsewhere; 1 is a join that nobody sees.

    It is nan without a border, or where every change is at one; inf for a video that changes at borders only.

    borders: [k], indices of the changes at a border; 0 is the change between the first two frames. A chunk that begins
      with frame n, counted from 0, has its border at n - 1.
    """
    at = np.isin(np.arange(len(changes)), borders)
    if not at.any() or at.all():
        return float('nan')
    with np.errstate(divide='ignore', invalid='ignore'):
        return float(np.divide(changes[at].mean(), changes[~at].mean()))
