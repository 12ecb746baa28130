"""How far the frames of a video are from its anchor frame, the one whose appearance it should keep.

The paper reports LPIPS for its appearance preservation module and does not say between which images; we take each frame
and the anchor.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def to_anchor(
    frames: np.ndarray, compare: Callable[[np.ndarray, np.ndarray], float], anchor: np.ndarray | None = None
) -> np.ndarray:
    """The curve [f] of compare(anchor, frame) over frames [f, h, w, 3].

    Args:
      compare: a function of two images such as `ssim`, or an LPIPS network; units and direction are its own.
      anchor: image [h, w, 3]; the first frame if None.
    """
    anchor = frames[0] if anchor is None else anchor
    with ThreadPoolExecutor() as pool:  # OpenCV and jax release the interpreter lock while they work
        return np.array(list(pool.map(lambda frame: compare(anchor, frame), frames)), np.float64)
