import numpy as np
import pytest

from st2v_jax.diffusion.schedule import (
    DiffusionConfig,
    ddim_levels,
    dpm_levels,
    noise_levels,
    trailing_levels,
)
from st2v_jax.diffusion.solvers import sampling_levels

EPSILON = DiffusionConfig()
ZERO = DiffusionConfig(prediction='v', zero_terminal_snr=True)


@pytest.mark.parametrize('config', [EPSILON, ZERO])
def test_a_level_keeps_the_variance_and_noise_only_grows(config):
    table = noise_levels(config)
    assert all(leaf.shape == (1000,) for leaf in table) and table.alpha.dtype == np.float64
    np.testing.assert_allclose(table.alpha**2 + table.sigma**2, 1, rtol=1e-14)
    assert (np.diff(table.sigma) > 0).all() and (np.diff(table.alpha) < 0).all()


def test_zero_terminal_snr_leaves_no_signal_at_the_end_and_the_first_level_as_it_was():
    table, plain = noise_levels(ZERO), noise_levels(EPSILON)
    assert table.alpha[-1] == 0 and table.sigma[-1] == 1
    assert table.alpha[0] == pytest.approx(plain.alpha[0], rel=1e-14)
    assert plain.alpha[-1] > 0.05


@pytest.mark.parametrize('steps', [1, 2, 7, 25, 30, 50, 999])
@pytest.mark.parametrize('spacing', [ddim_levels, dpm_levels, trailing_levels])
def test_levels_go_from_noisy_to_clean_in_the_steps_asked_for(spacing, steps):
    levels = spacing(noise_levels(EPSILON), steps)
    assert all(leaf.shape == (steps + 1,) for leaf in levels)
    assert (np.diff(levels.sigma[:-1]) < 0).all() and levels.sigma[-1] <= levels.sigma[-2]


def test_each_spacing_ends_and_begins_as_published():
    table = noise_levels(ZERO)
    ddim, dpm, trailing = (spacing(table, 50) for spacing in (ddim_levels, dpm_levels, trailing_levels))
    assert (ddim.t[0], ddim.t[-2]) == (981, 1) and ddim.alpha[-1] == table.alpha[0]
    assert (dpm.t[0], dpm.t[-2]) == (999, 20) and (dpm.alpha[-1], dpm.sigma[-1]) == (1, 0)
    assert (trailing.t[0], trailing.t[-2]) == (999, 19) and (trailing.alpha[-1], trailing.sigma[-1]) == (1, 0)


@pytest.mark.parametrize('solver', ['ddim', 'dpmpp_2m'])
def test_models_with_zero_terminal_snr_start_at_pure_noise(solver):
    assert sampling_levels(ZERO, solver, 25).alpha[0] == 0
    assert sampling_levels(EPSILON, solver, 25).alpha[0] > 0


@pytest.mark.parametrize('spacing, most', [(ddim_levels, 999), (dpm_levels, 1000), (trailing_levels, 1000)])
def test_a_process_cannot_be_sampled_in_more_steps_than_it_has(spacing, most):
    for steps in (0, most + 1):
        with pytest.raises(ValueError, match=f'in 1 to {most} steps, not {steps}'):
            spacing(noise_levels(EPSILON), steps)


@pytest.mark.parametrize(
    'bad, message',
    [
        ({'zero_terminal_snr': True}, "needs prediction='v'"),
        ({'prediction': 'x0'}, 'prediction is one of'),
        ({'beta_start': 0.1}, 'beta_start'),
        ({'steps': 1}, 'at least 2'),
    ],
)
def test_processes_that_cannot_be_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        DiffusionConfig(**bad)
