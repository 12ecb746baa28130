"""Facts of the Refiner's noise levels that do not need the original tables (those are golden case g7)."""

import numpy as np
import pytest

from st2v_jax.diffusion.log_snr import RefinerProcess, level_at, refiner_levels, sdedit_levels

TABLE = refiner_levels(RefinerProcess())


def test_levels_keep_variance_and_end_in_pure_noise():
    np.testing.assert_allclose(TABLE.alpha**2 + TABLE.sigma**2, 1, rtol=1e-14)
    assert (np.diff(TABLE.sigma) > 0).all() and (np.diff(TABLE.alpha) < 0).all()
    assert (TABLE.alpha[-1], TABLE.sigma[-1]) == (0, 1)


def test_the_clean_end_is_the_shifted_log_snr():
    log_snr = 2 * np.log(TABLE.alpha[0] / TABLE.sigma[0])
    assert log_snr == pytest.approx(15 - 2 * np.log(2), rel=1e-12)


def test_a_larger_scale_is_noisier_everywhere():
    other = refiner_levels(RefinerProcess(scale_noisy=8.0))
    assert (other.sigma[1:-1] > TABLE.sigma[1:-1]).all()


def test_levels_between_entries_lie_on_the_line_of_log_ratios():
    at = level_at(TABLE, [0, 10, 10.25, 11, 998.5, 999])
    ratio = np.log(at.sigma[:4] / at.alpha[:4])
    assert ratio[2] == pytest.approx(0.75 * ratio[1] + 0.25 * ratio[3], rel=1e-12)
    np.testing.assert_allclose(at.sigma[[0, 1, 3, 5]], TABLE.sigma[[0, 10, 11, 999]], rtol=1e-12)
    assert tuple(at.alpha[4:]) == (0, 0)
    assert list(at.t) == [0, 10, 10, 11, 998, 999]


@pytest.mark.parametrize('steps', [1, 2, 10, 15, 30, 599])
@pytest.mark.parametrize('start', [599, 999])
def test_sdedit_goes_from_its_start_to_the_clean_level(start, steps):
    levels = sdedit_levels(TABLE, steps, start)
    assert all(leaf.shape == (steps + 1,) for leaf in levels)
    assert levels.t[0] == start and levels.sigma[0] == pytest.approx(TABLE.sigma[start], rel=1e-12)
    assert (np.diff(levels.sigma) < 0).all() and (levels.alpha[-1], levels.sigma[-1]) == (1, 0)


def test_the_last_step_is_twice_as_long():
    # 31 points, 600 / 31 apart, without the last: the last step goes from 37.7 to the end
    t = sdedit_levels(TABLE, 30).t
    assert list(t[:3]) == [599, 580, 560] and t[-2] == 38


@pytest.mark.parametrize(
    'arguments, message',
    [((0,), 'in 1 to 599 steps, not 0'), ((600,), 'in 1 to 599 steps, not 600'), ((5, 1000), 'between 1 and 999')],
)
def test_impossible_samplings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sdedit_levels(TABLE, *arguments)


@pytest.mark.parametrize('bad, message', [({'steps': 1}, 'at least 2'), ({'scale_clean': 0.0}, 'positive')])
def test_processes_that_cannot_be_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        RefinerProcess(**bad)
