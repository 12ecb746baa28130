import numpy as np
import pytest

from st2v_jax.metrics.drift import drift, over_chunks


def test_the_ends_of_a_curve_are_compared():
    found = drift(np.concatenate([[10] * 3, [0] * 14, [40] * 3]))
    assert found == {'first': 10, 'last': 40, 'drift': 30, 'ratio': 4}


def test_a_straight_line_drifts_by_the_distance_of_its_ends():
    assert drift(np.arange(100))['drift'] == 85
    assert drift(np.arange(100), share=0.5)['drift'] == 50


@pytest.mark.parametrize('length', [1, 2, 3, 6])
def test_an_end_takes_at_least_one_value(length):
    found = drift(np.arange(length))
    assert (found['first'], found['last']) == (0, length - 1)


def test_what_is_not_known_is_left_out():
    curve = np.array([np.nan, 2, *[0] * 10, 5, np.nan])
    assert drift(curve)['drift'] == 3
    assert np.isnan(drift(np.full(20, np.nan))['drift'])


def test_a_ratio_of_nothing_is_no_number():
    assert np.isnan(drift(np.zeros(9))['ratio']) and drift(np.array([0, 1]))['ratio'] == np.inf


def test_chunks_go_from_each_start_to_the_next():
    np.testing.assert_array_equal(over_chunks([1, 1, 1, 4, 6, np.nan, 9], [0, 3, 5]), [1, 5, 9])


@pytest.mark.parametrize('starts', [[], [0, 0], [3, 1], [-1, 2], [0, 7]])
def test_says_where_chunks_may_start(starts):
    with pytest.raises(ValueError, match='rising frames from 0 to 6'):
        over_chunks(np.ones(7), starts)


@pytest.mark.parametrize(('curve', 'share'), [(np.ones((2, 2)), 0.1), ([], 0.1), (np.ones(4), 0), (np.ones(4), 0.6)])
def test_says_which_curves_it_takes(curve, share):
    with pytest.raises(ValueError, match='drift takes a curve'):
        drift(curve, share)
