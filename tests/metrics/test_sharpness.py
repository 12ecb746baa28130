import numpy as np
import pytest

from st2v_jax.metrics.sharpness import psnr, sharpness

cv2 = pytest.importorskip('cv2')


def test_blur_costs_sharpness_and_enlarging_is_blur():
    video = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    blurred = [np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in video]) for sigma in (0.5, 1, 2)]
    values = [sharpness(made) for made in (video, *blurred)]
    assert values == sorted(values, reverse=True) and values[-1] < 0.2 * values[0]
    small = np.stack([cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA) for frame in blurred[0]])
    large = np.stack([cv2.resize(frame, (64, 64), interpolation=cv2.INTER_LINEAR) for frame in small])
    assert sharpness(large) < 0.7 * sharpness(blurred[0])


def test_psnr_of_a_known_error():
    video = np.full((2, 4, 4, 3), 100, np.uint8)
    assert psnr(video, video + 10) == pytest.approx(20 * np.log10(25.5))
    assert psnr(video, video) > 90
