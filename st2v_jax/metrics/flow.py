"""Optical flow: where every pixel of a frame goes until the next one."""

import numpy as np

from st2v_jax.video_io import to_uint8


def flow(first, second):
    """Optical flow of two images [h, w, 3] -> [h, w, 2] in pixels: first(x) shows what second(x + flow) shows.

    Dense inverse search (Kroeger et al. 2016, arXiv:1603.03590) as OpenCV has it, on grey images.
    """
    import cv2  # an extra: whoever only samples does not need it

    estimate = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(np.ascontiguousarray(to_uint8(image)), cv2.COLOR_RGB2GRAY) for image in (first, second)]
    return estimate.calc(*grey, None)


def flow_length(flows):
    """flows [..., h, w, 2] -> [...], the mean length of the vectors in pixels a frame."""
    return np.linalg.norm(np.asarray(flows, np.float64), axis=-1).mean((-2, -1))
