"""Optical flow: where each pixel of a frame moves to in the next frame."""

import numpy as np

from st2v_jax.video_io import to_uint8


def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optical flow [h, w, 2] in pixels between two images [h, w, 3]: first(x) shows what second(x + flow(x)) shows.

    Computed on grey images by dense inverse search (Kroeger et al. 2016, arXiv:1603.03590), as implemented in OpenCV.
    """
    import cv2  # an extra that sampling does not need

    estimate = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(np.ascontiguousarray(to_uint8(image)), cv2.COLOR_RGB2GRAY) for image in (first, second)]
    return estimate.calc(*grey, None)


def flow_length(flows: np.ndarray) -> np.ndarray:
    """Mean length [...] of the vectors of flows [..., h, w, 2], in pixels per frame."""
    return np.linalg.norm(np.asarray(flows, np.float64), axis=-1).mean((-2, -1))
