"""MAWE is zero for a picture that moves along its flow; flicker and standing still increase it."""

import numpy as np
import pytest

from st2v_jax.metrics import mawe


@pytest.fixture
def panning():
    """A picture that moves two pixels to the right and one down with every frame, and its flow."""
    wide = np.random.default_rng(0).uniform(0, 255, (40, 60, 3)).astype(np.float32)
    frames = np.stack([wide[10 - i : 30 - i, 20 - 2 * i : 44 - 2 * i] for i in range(5)])
    return frames, np.broadcast_to(np.float32([2, 1]), (4, 20, 24, 2))


def test_motion_that_the_flow_explains_costs_nothing(panning):
    frames, flows = panning
    assert mawe.mawe(frames, flows) == mawe.mawe(frames, flows, profile='paper') == 0


def test_flicker_costs_its_square(panning):
    frames, flows = panning
    flicker = np.array([0, 10, 0, 10, 0], np.float32)[:, None, None, None]
    assert mawe.mawe(frames + flicker, flows) == pytest.approx(100 / (9.5 * 5**0.5), rel=1e-5)
    assert mawe.mawe(frames + flicker, flows, profile='paper') == pytest.approx(100 / (9.5 * 5), rel=1e-5)


def test_standing_still_is_no_way_out(panning):
    frames, flows = panning
    assert mawe.mawe(np.repeat(frames[:1], 5, 0), 0 * flows) == np.inf


def test_targets_round_half_to_even_and_the_last_source_stays():
    image = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4, 1)
    flow = np.zeros((1, 1, 4, 2), np.float32)
    flow[0, 0, :, 0] = [0.5, 0, 0.5, -2.5]  # targets 0.5 -> 0, 1, 2.5 -> 2, 0.5 -> 0
    warped, known = mawe.warp(image, flow)
    np.testing.assert_array_equal(warped.ravel(), [4, 2, 3, 0])
    np.testing.assert_array_equal(known.ravel(), [True, True, True, False])


def test_what_leaves_the_image_is_dropped():
    image, flow = np.ones((1, 2, 2, 3), np.float32), np.full((1, 2, 2, 2), 9, np.float32)
    warped, known = mawe.warp(image, flow)
    assert not warped.any() and not known.any()
    assert mawe.warp_error(image, flow, image) == np.inf


def test_says_what_does_not_fit(panning):
    frames, flows = panning
    with pytest.raises(ValueError, match='5 frames need 4 flows, got 3'):
        mawe.mawe(frames, flows[:3])
    with pytest.raises(ValueError, match='do not fit images'):
        mawe.mawe(frames, flows[:, :, :5])
    with pytest.raises(ValueError, match="not 'papr'"):
        mawe.mawe(frames, flows, profile='papr')
