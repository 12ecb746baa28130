"""Does a refined video run on evenly? What the paper reads of its randomized blending, and what chunk borders cost.

Both are to be read beside the same numbers of the video before refinement: motion that changes its speed is no fault.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from st2v_jax.metrics.flow import flow, flow_length
from st2v_jax.video_io import to_uint8


def flow_lengths(video):
    """video [f, h, w, 3] -> [f - 1], the mean length of the flow vectors between consecutive frames, in pixels."""
    if len(video) < 2:
        raise ValueError(f'motion needs two frames or more, got {len(video)}')
    with ThreadPoolExecutor() as pool:  # OpenCV lets go of the interpreter while it works
        return np.array(list(pool.map(lambda pair: flow_length(flow(*pair)), zip(video[:-1], video[1:]))))


def frame_changes(video):
    """video [f, h, w, 3] -> [f - 1], mean absolute differences of consecutive frames, in grey values of 0..255."""
    frames = to_uint8(np.asarray(video)).astype(np.float32)
    return np.array([np.abs(a - b).mean() for a, b in zip(frames[:-1], frames[1:])])


def border_ratio(changes, borders):
    """Mean of changes [f - 1] where chunks are joined divided by their mean elsewhere; nan without any border.

    borders: [k], the numbers of those changes; 0 is the one between the first two frames.
    """
    at = np.isin(np.arange(len(changes)), borders)
    return float(changes[at].mean() / changes[~at].mean()) if at.any() else float('nan')
