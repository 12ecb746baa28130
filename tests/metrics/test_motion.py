"""Flow and high-frequency change of videos with known motion."""

import numpy as np
import pytest

from st2v_jax.metrics import motion
from st2v_jax.metrics.flow import flow
from st2v_jax.video_io import to_uint8

cv2 = pytest.importorskip('cv2')


def texture(size=160, seed=0):
    """A smooth random picture [size, size, 3] in [-1, 1]."""
    noise = np.random.default_rng(seed).standard_normal((size, size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(smooth / np.abs(smooth).max(), -1, 1)


def moving(shift, frames=4, size=96):
    """A window that moves over a texture by (x, y) pixels per frame: [frames, size, size, 3]."""
    picture, (x, y) = texture(), shift
    return np.stack([picture[30 + i * y : 30 + i * y + size, 30 + i * x : 30 + i * x + size] for i in range(frames)])


@pytest.mark.parametrize('shift', [(2, 0), (0, 3), (3, 4)])
def test_flow_of_a_shifted_image_is_the_shift(shift):
    frames = moving(shift)
    vectors = flow(frames[0], frames[1])
    np.testing.assert_allclose(np.median(vectors, (0, 1)), (-shift[0], -shift[1]), atol=0.1)
    assert motion.motion(frames)['flow'] == pytest.approx(np.hypot(*shift), rel=0.1)


def test_a_frozen_video_has_no_flow_and_no_change():
    measured = motion.motion(moving((0, 0)))
    assert measured['flow'] == 0 and measured['change'] == 0 and measured['detail'] > 0


def test_high_frequency_change_grows_with_flicker_and_not_with_motion():
    still, noise = moving((0, 0)), np.random.default_rng(1).standard_normal((4, 96, 96, 3))
    changes = [motion.motion(still + amount * noise)['change'] for amount in (0, 0.02, 0.05, 0.1)]
    assert changes == sorted(changes) and changes[1] > 0
    assert motion.motion(moving((2, 1)))['change'] < changes[1]


def test_bytes_and_floats_give_the_same():
    frames = moving((1, 0))
    assert motion.motion(frames) == motion.motion(to_uint8(frames))


def test_one_frame_has_no_motion_to_measure():
    with pytest.raises(ValueError, match='at least two frames, got 1'):
        motion.motion(moving((1, 0))[:1])
