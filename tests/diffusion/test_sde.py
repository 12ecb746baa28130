"""The stochastic solver on Gaussian data, whose denoiser is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.diffusion import predict, sampling
from st2v_jax.diffusion.log_snr import RefinerProcess, refiner_levels, sdedit_levels
from st2v_jax.diffusion.schedule import Level
from st2v_jax.diffusion.solvers import dpmpp_2m_sde_step, dpmpp_2m_step

MU, S = 0.7, 0.5
TABLE = refiner_levels(RefinerProcess())


def denoise(x, level):
    a, g = level.alpha, level.sigma
    return MU + a * S**2 / (a**2 * S**2 + g**2) * (x - a * MU)


def test_samples_have_the_mean_and_spread_of_the_data():
    levels, key = sdedit_levels(TABLE, 100), jax.random.key(0)
    a, g = levels.alpha[0], levels.sigma[0]
    x = a * MU + jnp.sqrt(a**2 * S**2 + g**2) * jax.random.normal(key, (20_000,))
    noise = lambda step: jax.random.normal(jax.random.fold_in(key, step + 1), x.shape)
    end = sampling.sample(denoise, x, levels, solver='dpmpp_2m_sde', noise=noise)
    assert end.mean() == pytest.approx(MU, abs=0.02)
    assert end.std() == pytest.approx(S, rel=0.03)


def test_a_step_with_the_true_prediction_keeps_the_forward_marginal():
    # x0 known exactly: x at any level is N(alpha x0, sigma^2), before and after the step
    last, now, nxt = (Level(TABLE.alpha[t], TABLE.sigma[t], t) for t in (600, 400, 150))
    key = jax.random.split(jax.random.key(0))
    noise, fresh = (jax.random.normal(k, (100_000,)) for k in key)
    x = dpmpp_2m_sde_step(predict.add_noise(jnp.full_like(noise, MU), noise, now), MU, MU, last, now, nxt, fresh)
    assert x.mean() == pytest.approx(nxt.alpha * MU, abs=0.01)
    assert x.std() == pytest.approx(nxt.sigma, rel=0.01)


def test_into_the_clean_level_the_step_is_the_prediction_whatever_the_noise():
    x, x0 = jnp.linspace(-2, 2, 9), jnp.linspace(0, 1, 9)
    last, now, clean = Level(0.6, 0.8, 2), Level(0.8, 0.6, 1), Level(1.0, 0.0, 0)
    np.testing.assert_allclose(dpmpp_2m_sde_step(x, x0, x, last, now, clean, 100 * x), x0, rtol=1e-6)


def test_out_of_pure_noise_nothing_of_it_is_kept():
    x, x0, fresh = jnp.linspace(-2, 2, 9), jnp.linspace(0, 1, 9), jnp.linspace(1, -1, 9)
    pure, nxt = Level(0.0, 1.0, 999), Level(0.6, 0.8, 500)
    np.testing.assert_allclose(dpmpp_2m_sde_step(x, x0, x, pure, pure, nxt, fresh), 0.6 * x0 + 0.8 * fresh, atol=1e-6)


def test_short_steps_follow_the_same_prediction_as_the_deterministic_solver():
    # without noise the two differ by the part that the noise replaces, which vanishes with the step
    x, x0 = jnp.linspace(-2, 2, 9), jnp.linspace(0, 1, 9)
    now = Level(0.8, 0.6, 0)
    for h in (0.01, 0.001):
        s = 0.6 / 0.8 * np.exp(-h)
        nxt = Level(1 / np.sqrt(1 + s**2), s / np.sqrt(1 + s**2), 0)
        sde = dpmpp_2m_sde_step(x, x0, x0, now, now, nxt, 0.0)
        assert jnp.abs(sde - dpmpp_2m_step(x, x0, x0, now, now, nxt)).max() < 3 * h


def test_the_prediction_is_read_at_the_entry_that_the_network_received():
    seen = []
    told = predict.at_entries(lambda x, level: seen.append(level) or x, TABLE)
    told(jnp.zeros(3), Level(0.1, 0.2, jnp.int32(560)))
    assert float(seen[0].sigma) == pytest.approx(TABLE.sigma[560], rel=1e-6) and int(seen[0].t) == 560
