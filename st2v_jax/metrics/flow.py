"""Optical flow: where each pixel of a frame moves to in the next frame.

A flow estimate is any function of two images [h, w, 3] that gives [h, w, 2] in pixels, (x, y): first(x) shows what
second(x + flow(x)) shows. `flow` and `farneback` are such functions; a network can be another.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from st2v_jax.video_io import to_uint8

Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]


def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optical flow [h, w, 2] in pixels between two images [h, w, 3]: first(x) shows what second(x + flow(x)) shows.

    Computed on grey images by dense inverse search (Kroeger et al. 2016, arXiv:1603.03590), as implemented in OpenCV.
    """
    import cv2  # an extra that sampling does not need

    estimate = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return estimate.calc(_grey(first), _grey(second), None)


def farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optical flow [h, w, 2] in pixels by polynomial expansion (Farneback 2003), as implemented in OpenCV.

    The settings are those of OpenCV's own example: a pyramid of 3 levels at half size, windows of 15 pixels, 3
    iterations, polynomials over 5 pixels.
    """
    import cv2

    return cv2.calcOpticalFlowFarneback(_grey(first), _grey(second), None, 0.5, 3, 15, 3, 5, 1.2, 0)


def _grey(image):
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(to_uint8(image)), cv2.COLOR_RGB2GRAY)


def flows(frames: np.ndarray, estimate: Estimate = flow) -> np.ndarray:
    """The flows [f - 1, h, w, 2] from each of the frames [f, h, w, 3] to the next, in pixels; f is at least 2."""
    if len(frames) < 2:
        raise ValueError(f'flow needs at least two frames, got {len(frames)}')
    with ThreadPoolExecutor() as pool:  # OpenCV releases the interpreter lock while it works
        return np.stack(list(pool.map(estimate, frames[:-1], frames[1:])))


def flow_length(flows: np.ndarray) -> np.ndarray:
    """Mean length [...] of the vectors of flows [..., h, w, 2], in pixels per frame."""
    return np.linalg.norm(np.asarray(flows, np.float64), axis=-1).mean((-2, -1))
