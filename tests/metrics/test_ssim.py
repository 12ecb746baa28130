import numpy as np
import pytest
from known_videos import noisy, panning, reddening, texture

from st2v_jax.metrics.ssim import C1, ssim

cv2 = pytest.importorskip('cv2')


def test_an_image_is_like_itself_and_unlike_its_negative():
    image = texture(24, 40)
    assert ssim(image, image) == pytest.approx(1, abs=1e-12)
    assert ssim(image, 255 - image) < 0


def test_plain_images_differ_by_their_means_alone():
    a, b = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 150, np.uint8)
    assert ssim(a, b) == pytest.approx((2 * 100 * 150 + C1) / (100**2 + 150**2 + C1), abs=1e-9)


def test_more_noise_is_less_alike():
    video = np.repeat(panning(1), 2, 0)
    values = [ssim(video[0], noisy(video, strength)[1]) for strength in (0, 2, 5, 12, 30)]
    assert values == sorted(values, reverse=True) and values[0] == 1 and values[-1] < 0.5


def test_frames_leave_the_first_as_they_change():
    video = reddening(np.repeat(panning(1), 5, 0), 80)
    curve = [ssim(video[0], frame) for frame in video]
    assert curve[0] == 1 and curve == sorted(curve, reverse=True) and curve[-1] < 0.97


@pytest.mark.parametrize('shapes', [((16, 16, 3), (16, 17, 3)), ((10, 32, 3), (10, 32, 3)), ((32, 10, 3), (32, 10, 3))])
def test_says_which_images_it_compares(shapes):
    with pytest.raises(ValueError, match='two images of one size from 11x11 on'):
        ssim(*(np.zeros(shape, np.uint8) for shape in shapes))


@pytest.mark.parity
@pytest.mark.parametrize('strength', [1, 10, 60])
def test_agrees_with_scikit_image(strength):
    metrics = pytest.importorskip('skimage.metrics')
    a, b = noisy(np.repeat(texture(31, 50)[None], 2, 0), strength)
    theirs = metrics.structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
    )
    assert ssim(a, b) == pytest.approx(theirs, abs=1e-9)
