"""Steady motion, and jumps where chunks are joined, in videos that are made with or without them."""

import numpy as np
import pytest

from st2v_jax.metrics import steadiness

cv2 = pytest.importorskip('cv2')
BORDERS = np.array([23, 39])  # chunks of 24 frames are joined after frames 24 and 40, counted from 1


def moving(speeds, size=96):
    """A window over a smooth random texture, moved by speeds [f - 1] in pixels: [f, size, size, 3]."""
    places = np.cumsum([0, *speeds])
    noise = np.random.default_rng(0).standard_normal((size, size + places[-1], 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    texture /= np.abs(texture).max()
    return np.stack([texture[:, place : place + size] for place in places])


def test_even_motion_has_no_deviation_of_flow():
    even, uneven = (steadiness.flow_lengths(moving(speeds)) for speeds in ([2] * 8, [1, 4] * 4))
    assert even.mean() == pytest.approx(2, rel=0.1) and even.std() < 0.05
    assert uneven.std() == pytest.approx(1.5, rel=0.15)


def test_one_frame_has_no_flow():
    with pytest.raises(ValueError, match='at least two frames, got 1'):
        steadiness.flow_lengths(moving([1])[:1])


def test_jumps_at_borders_show_in_the_ratio_and_jumps_elsewhere_do_not():
    speeds = np.ones(55, int)
    even = steadiness.border_ratio(steadiness.frame_changes(moving(speeds)), BORDERS)
    assert even == pytest.approx(1, abs=0.1)
    at_borders, elsewhere = speeds.copy(), speeds.copy()
    at_borders[BORDERS] = elsewhere[[10, 30]] = 5
    ratio = lambda speeds: steadiness.border_ratio(steadiness.frame_changes(moving(speeds)), BORDERS)
    assert ratio(at_borders) > 1.5 > 1 > ratio(elsewhere)
    assert np.isnan(steadiness.border_ratio(np.ones(19), []))


def test_a_ratio_needs_changes_at_borders_and_elsewhere():
    assert np.isnan(steadiness.border_ratio(np.ones(3), [0, 1, 2]))
    assert steadiness.border_ratio(np.array([0.0, 5, 0]), [1]) == np.inf
    assert np.isnan(steadiness.border_ratio(np.zeros(3), [1]))
