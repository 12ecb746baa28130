"""SSIM, the structural similarity of two images (Wang et al. 2004, IEEE TIP 13(4))."""

import numpy as np

from st2v_jax.video_io import to_uint8

WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity of two images [h, w, 3], at most 1 for equal ones; h and w are at least 11.

    Means, variances and the covariance are those of a Gaussian window of 11 pixels and sigma 1.5, and the result is
    averaged over the channels and the places where the window lies inside the image.
    """
    import cv2

    if first.shape != second.shape or min(first.shape[:2]) < WINDOW:
        raise ValueError(
            f'SSIM compares two images of one size from {WINDOW}x{WINDOW} on, got {first.shape} and {second.shape}'
        )
    a, b = (to_uint8(image).astype(np.float64) for image in (first, second))
    inside = (slice(WINDOW // 2, -(WINDOW // 2)),) * 2
    blur = lambda image: cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA)[inside]
    mean_a, mean_b = blur(a), blur(b)
    variances = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    alike = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return float((alike / ((mean_a**2 + mean_b**2 + C1) * (variances + C2))).mean())
