"""Distances of Gaussians whose distance is known, and of samples."""

import numpy as np
import pytest

from st2v_jax.metrics.frechet import floor, frechet_distance, over_sizes


def features(n, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def whitened(n, d=6, seed=0):
    """Features whose sample mean is 0 and whose sample covariance is 1, up to rounding."""
    x = features(n, d, seed)
    return np.linalg.qr(x - x.mean(0))[0] * np.sqrt(n - 1)


def test_equal_features_are_at_zero_in_any_order():
    x = features(40)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-10)


def test_a_shift_costs_its_square_and_a_scale_the_square_of_the_difference():
    x, y = whitened(50), whitened(31, seed=1)
    assert frechet_distance(x, y + [3, 4, 0, 0, 0, 0]) == pytest.approx(25)
    assert frechet_distance(x, 3 * y) == pytest.approx(6 * (3 - 1) ** 2)


def test_is_the_formula_with_the_root_of_the_matrix():
    linalg = pytest.importorskip('scipy.linalg')
    rng = np.random.default_rng(2)
    x, y = (features(60, seed=i) @ rng.standard_normal((6, 6)) + i for i in range(2))
    c, d = np.cov(x.T), np.cov(y.T)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c + d - 2 * linalg.sqrtm(c @ d).real)
    assert frechet_distance(x, y) == pytest.approx(expected)
    assert frechet_distance(y, x) == pytest.approx(expected)


def test_fewer_rows_than_columns_are_exact_too():
    x = np.zeros((2, 500))
    x[:, 0] = -1, 1  # variance 2 along one axis
    y = np.zeros((3, 500))
    y[:, 0] = -2, 0, 2  # variance 4
    assert frechet_distance(x, y) == pytest.approx((2 - np.sqrt(2)) ** 2)


def test_a_larger_shift_is_further():
    x, y = features(60), features(60, seed=1)
    found = [frechet_distance(x, y + shift) for shift in (0, 0.3, 0.6, 1, 2)]
    assert found == sorted(set(found))


def test_the_floor_is_above_zero_and_falls_with_more_rows():
    means = [floor(features(n), np.random.default_rng(0))['mean'] for n in (20, 80, 320)]
    assert means == sorted(means, reverse=True) and means[-1] > 0
    assert floor(features(20), np.random.default_rng(3)) == floor(features(20), np.random.default_rng(3))


def test_the_curve_over_sizes_keeps_what_is_different_above_the_floor():
    found = over_sizes(features(200), features(100, seed=1) + 1, [10, 30, 90], np.random.default_rng(0))
    assert found['sizes'] == [10, 30, 90]
    assert found['floor'] == sorted(found['floor'], reverse=True)
    assert (np.array(found['made']) > np.array(found['floor'])).all() and found['made'][-1] == pytest.approx(6, rel=0.3)
    with pytest.raises(ValueError, match='from 2 to 100, got'):
        over_sizes(features(200), features(100), [101], np.random.default_rng(0))


@pytest.mark.parametrize('bad', [features(1), features(3)[0], np.full((4, 6), np.nan)])
def test_says_which_features_it_takes(bad):
    with pytest.raises(ValueError, match='finite features'):
        frechet_distance(features(5), bad)


def test_features_of_different_networks_do_not_compare():
    with pytest.raises(ValueError, match='one width, got 6 and 5'):
        frechet_distance(features(9), features(9, 5))
