"""How sharp a video is, and how close it is to the ground truth."""

import numpy as np

from st2v_jax.metrics.motion import high_pass
from st2v_jax.video_io import to_uint8

BOX = 11  # pixels


def sharpness(video: np.ndarray) -> float:
    """Mean absolute high-frequency band of a video [f, h, w, 3], in grey values of 0..255 (see metrics/motion.py)."""
    return float(np.mean([np.abs(high_pass(frame[None])).mean() for frame in video]))


def blur(frame: np.ndarray) -> float:
    """How blurred an image [h, w, 3] is, without a reference: 0 is sharp, 1 blurred (Crete et al. 2007).

    Blurring a sharp image changes its edges much, blurring a blurred one hardly. The result is the share of the edge
    strength that a box of 11 pixels leaves, of the direction in which that is more. Noise counts as sharp.
    """
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(to_uint8(frame)), cv2.COLOR_RGB2GRAY).astype(np.float64) / 255
    found = []
    for along in ((1, 0), (0, 1)):
        box = (BOX, 1) if along == (1, 0) else (1, BOX)
        softer = cv2.blur(grey, box, borderType=cv2.BORDER_REFLECT)
        edges, left = (
            np.abs(cv2.Sobel(image, cv2.CV_64F, *along, ksize=3, borderType=cv2.BORDER_REFLECT))[2:-1, 2:-1]
            for image in (grey, softer)
        )
        strength = edges.sum()
        found.append(1 - np.maximum(0, edges - left).sum() / strength if strength else 1.0)
    return float(max(found))


def psnr(video: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two videos [f, h, w, 3] in dB."""
    error = np.mean([np.square(a.astype(np.float32) - b).mean() for a, b in zip(to_uint8(video), to_uint8(truth))])
    return float(10 * np.log10(255**2 / max(error, 1e-10)))
