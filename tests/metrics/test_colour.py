import numpy as np
import pytest
from known_videos import bleaching, panning, reddening

from st2v_jax.metrics import colour


def plain(*colours):
    return np.stack([np.full((8, 8, 3), c, np.uint8) for c in colours])


def test_distance_of_mean_colours_is_in_levels():
    colours = colour.mean_colours(plain((10, 20, 30), (13, 24, 30)))
    np.testing.assert_array_equal(colours, [[10, 20, 30], [13, 24, 30]])
    np.testing.assert_allclose(colour.colour_distances(colours, colours[0]), [0, 5])


def test_histograms_are_equal_or_disjoint_or_between():
    half = plain((0, 0, 0))
    half[0, :4] = 255
    shares = colour.histograms(np.concatenate([plain((0, 0, 0), (255, 255, 255), (31, 31, 31)), half]))
    np.testing.assert_allclose(shares.sum(-1), 1)
    np.testing.assert_allclose(colour.histogram_distances(shares, shares[0]), [0, 1, 0, 0.5])


def test_grey_has_no_colour_and_primaries_have_their_value():
    grey, red = colour.colourfulness(plain((90, 90, 90), (255, 0, 0)))
    assert grey == 0 and red == pytest.approx(0.3 * np.hypot(255, 127.5))


def test_stronger_drift_is_further_away():
    still = np.repeat(panning(1), 8, 0)
    for measure, distance in (
        (colour.mean_colours, colour.colour_distances),
        (colour.histograms, colour.histogram_distances),
    ):
        found = [measure(reddening(still, strength)) for strength in (0, 5, 15, 30, 60)]
        ends = [distance(x, x[0])[-1] for x in found]
        assert ends == sorted(set(ends)) and ends[0] == 0
    faded = [colour.colourfulness(bleaching(still, strength))[-1] for strength in (0, 0.2, 0.4, 0.7, 1)]
    assert faded == sorted(set(faded), reverse=True) and faded[-1] == 0


def test_colour_steps_are_how_far_values_move_wherever_they_are():
    dark_left, dark_right = plain((10, 10, 10), (10, 10, 10))
    dark_left[:, 4:], dark_right[:, :4] = 50, 50
    np.testing.assert_allclose(colour.colour_steps([dark_left, dark_right, dark_right + 3]), [0, 3])
    np.testing.assert_allclose(colour.colour_steps(plain((0, 0, 0), (0, 0, 9), (255, 255, 255))), [3, 252])
    pan = panning(3, 2)
    assert colour.colour_steps(pan).max() < 2 < colour.colour_steps(reddening(pan, 60)).min()
