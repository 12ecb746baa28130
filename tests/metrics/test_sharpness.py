import numpy as np
import pytest

from st2v_jax.metrics.sharpness import blur, psnr, sharpness

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


@pytest.mark.parametrize('size', [(64, 64), (31, 50)])
def test_blur_without_a_reference_grows_with_blur(size):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    values = [blur(frame), *(blur(cv2.GaussianBlur(frame, (0, 0), sigma)) for sigma in (0.7, 1.5, 3, 6))]
    assert values == sorted(values) and 0 <= values[0] < 0.3 and 0.6 < values[-1] <= 1
    assert blur(np.full((*size, 3), 9, np.uint8)) == 1


@pytest.mark.parity
def test_blur_agrees_with_scikit_image():
    measure = pytest.importorskip('skimage.measure')
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for image in (frame, cv2.GaussianBlur(frame, (0, 0), 2), cv2.GaussianBlur(frame, (0, 0), 3)[:, ::-1]):
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) / 255
        assert blur(image) == pytest.approx(measure.blur_effect(grey), abs=1e-9)
