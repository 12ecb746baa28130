"""The features of FVD as an instrument: what I3D tells of 16 frames of each video."""

from pathlib import Path

import jax
import numpy as np

from st2v_jax.convert.metric_tables import read_i3d
from st2v_jax.evaluation.instruments import Instrument, View
from st2v_jax.models import build
from st2v_jax.models.i3d import SIZE, I3d

FRAMES = 16  # of a clip


def instrument(file: str | Path, start: int = 0) -> Instrument:
    """The instrument, with the file of `read_i3d`. It has no numbers but one curve, 'i3d': the 400 scores of a clip.

    start: number of the first frame of the clip, counted from 0.
    """
    params, network = jax.device_put(read_i3d(file)), build.network(I3d)
    scores = jax.jit(network)

    def begin(_):
        clip, seen = [], 0

        def look(view: View):
            nonlocal seen
            first, seen = seen, seen + len(view.frames)
            missing = view.frames[max(start - first, 0) :][: FRAMES - len(clip)]
            clip.extend(missing.copy())
            done = len(missing) and len(clip) == FRAMES
            return {'i3d': np.asarray(scores(params, prepared(np.stack(clip))[None]))[0] if done else np.zeros(0)}

        return look

    return Instrument(
        'i3d',
        begin,
        lambda curves: {},
        fewest=start + FRAMES,
        about={'weights': str(file), 'frames': [start, start + FRAMES]},
    )


def prepared(frames: np.ndarray) -> np.ndarray:
    """uint8 [f, h, w, 3] -> float32 [f, 224, 224, 3] in [-1, 1]: bilinear, whatever the shape, without averaging.

    This is torch's interpolation with align_corners=False, and so what most programs compute FVD with.
    """
    import cv2

    large = [cv2.resize(frame.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for frame in frames]
    return np.stack(large) / 127.5 - 1
