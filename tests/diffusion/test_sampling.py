"""The data are a Gaussian: its denoiser and its probability flow are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.diffusion.sampling import sample, stepper
from st2v_jax.diffusion.schedule import DiffusionConfig, Level
from st2v_jax.diffusion.solvers import SOLVERS, sampling_levels

MU, S = 0.7, 0.5


def denoise(x, level):
    a, g = level.alpha, level.sigma
    return MU + a * S**2 / (a**2 * S**2 + g**2) * (x - a * MU)


def flow_error(solver, steps):
    """Distance to where the probability flow takes points between two noise levels."""
    lam = jnp.linspace(-2.5, 2.0, steps + 1)  # log(alpha / sigma)
    levels = Level(jnp.sqrt(jax.nn.sigmoid(2 * lam)), jnp.sqrt(jax.nn.sigmoid(-2 * lam)), jnp.zeros(steps + 1))
    (a, b), (g, h) = levels.alpha[jnp.array([0, -1])], levels.sigma[jnp.array([0, -1])]
    x = jnp.linspace(-2, 2, 9)
    exact = b * MU + jnp.sqrt((b**2 * S**2 + h**2) / (a**2 * S**2 + g**2)) * (x - a * MU)
    return float(jnp.abs(sample(denoise, x, levels, solver=solver) - exact).max())


@pytest.mark.parametrize('solver, order', [('ddim', 1), ('dpmpp_2m', 2)])
def test_solvers_converge_at_their_published_order(solver, order):
    errors = [flow_error(solver, steps) for steps in (32, 64, 128)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(rates - order) < 0.35).all(), (errors, rates)


def test_dpm_solver_is_nearer_than_ddim():
    assert flow_error('dpmpp_2m', 32) < flow_error('ddim', 32) / 10


@pytest.mark.parametrize('zero_terminal_snr', [False, True])
@pytest.mark.parametrize('solver, eta', [('ddim', 1.0), *((solver, 0.0) for solver in SOLVERS)])
def test_samples_have_the_mean_and_spread_of_the_data(solver, eta, zero_terminal_snr):
    config = DiffusionConfig(prediction='v', zero_terminal_snr=zero_terminal_snr)
    levels, key = sampling_levels(config, solver, 400), jax.random.key(0)
    a, g = levels.alpha[0], levels.sigma[0]
    x = a * MU + jnp.sqrt(a**2 * S**2 + g**2) * jax.random.normal(key, (20_000,))
    noise = lambda step: jax.random.normal(jax.random.fold_in(key, step + 1), x.shape)
    x = sample(denoise, x, levels, solver=solver, eta=eta, noise=noise)
    assert jnp.isfinite(x).all()
    assert x.mean() == pytest.approx(MU, abs=0.02)
    assert x.std() == pytest.approx(S, rel=0.03)


@pytest.mark.parametrize('solver', ['ddim', 'dpmpp_2m'])
def test_from_pure_noise_the_first_step_is_exact(solver):
    x = jnp.linspace(-2, 2, 9)
    levels = Level(jnp.array([0.0, 0.6]), jnp.array([1.0, 0.8]), jnp.array([999, 500]))
    np.testing.assert_allclose(sample(denoise, x, levels, solver=solver), 0.6 * MU + 0.8 * x, atol=1e-6)


@pytest.mark.parametrize('solver', ['ddim', 'dpmpp_2m'])
def test_the_step_to_the_clean_level_is_the_prediction(solver):
    x = jnp.linspace(-2, 2, 9)
    levels = Level(jnp.array([0.6, 0.8, 1.0]), jnp.array([0.8, 0.6, 0.0]), jnp.array([700, 300, 0]))
    seen = []
    with jax.disable_jit():
        end = sample(lambda x, level: (seen.append(denoise(x, level)), seen[-1])[1], x, levels, solver=solver)
    np.testing.assert_allclose(end, seen[-1], rtol=1e-6)


def test_eta_zero_needs_no_noise_and_eta_one_uses_each_steps_own():
    levels = sampling_levels(DiffusionConfig(), 'ddim', 4)
    stored = jax.random.normal(jax.random.key(1), (4, 9))
    run = lambda stored: sample(denoise, jnp.zeros(9), levels, eta=1.0, noise=lambda i: stored[i])
    plain = run(stored)
    for i in range(4):
        assert jnp.abs(run(stored.at[i].add(1.0)) - plain).min() > 1e-4


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'solver': 'euler'}, 'solver is one of'),
        ({'eta': 1.0}, 'needs noise'),
        ({'solver': 'dpmpp_2m_sde'}, 'needs noise'),
        ({'eta': 1.0, 'solver': 'dpmpp_2m', 'noise': abs}, 'unless the solver is ddim'),
    ],
)
def test_impossible_samplers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        stepper(denoise, **arguments)
