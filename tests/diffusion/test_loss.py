import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.diffusion.log_snr import RefinerProcess, refiner_levels, sdedit_levels
from st2v_jax.diffusion.loss import diffusion_loss, drop_conditions, sdedit_noise
from st2v_jax.diffusion.predict import denoiser
from st2v_jax.diffusion.schedule import DiffusionConfig, Level, noise_levels
from st2v_jax.diffusion.solvers import dpmpp_2m_sde_step

CONFIG = DiffusionConfig(prediction='v', zero_terminal_snr=True)
TABLE = noise_levels(CONFIG)
X0, NOISE = jax.random.normal(jax.random.key(0), (2, 4, 3, 2, 2, 4))
T = jnp.array([0, 300, 700, 998])


@pytest.mark.parametrize('prediction', ['epsilon', 'v'])
def test_the_network_of_no_loss_denoises_exactly(prediction):
    """The target of training is the prediction that sampling reads."""

    def network(answer):
        return lambda x, t: (xs.append(x), answer)[1]

    xs = []
    gradient = jax.grad(lambda answer: diffusion_loss(network(answer), X0, NOISE, T, TABLE, prediction))
    guess = jnp.zeros_like(X0)
    answer = guess - gradient(guess) * guess.size / 2  # the loss is a mean of squares: one Newton step
    xs.clear()
    assert diffusion_loss(network(answer), X0, NOISE, T, TABLE, prediction) < 1e-10
    level = Level(*(jnp.asarray(leaf)[T] for leaf in TABLE))
    np.testing.assert_allclose(denoiser(lambda x, t: answer, prediction)(xs[0], level), X0, atol=3e-3)


def test_pure_noise_trains_on_minus_x0():
    loss = diffusion_loss(lambda x, t: -X0, X0, NOISE, jnp.full(4, 999), TABLE, 'v')
    assert loss == pytest.approx(0, abs=1e-10)


def test_the_loss_of_an_idle_network_is_the_power_of_the_noise():
    loss = diffusion_loss(lambda x, t: jnp.zeros(x.shape, jnp.bfloat16), X0, NOISE, T, TABLE, 'epsilon')
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(float(jnp.mean(NOISE**2)), rel=1e-6)


def test_conditions_are_dropped_with_the_stated_shares():
    text, anchor = drop_conditions(jax.random.key(0), 200_000)
    shares = [(text & ~anchor).mean(), (anchor & ~text).mean(), (text & anchor).mean()]
    np.testing.assert_allclose(shares, 0.05, atol=0.002)  # four standard deviations


def test_shares_can_be_chosen_or_turned_off():
    text, anchor = drop_conditions(jax.random.key(0), 100_000, text=0.1, anchor=0.0, both=0.0)
    assert text.mean() == pytest.approx(0.1, abs=0.004) and not anchor.any()
    with pytest.raises(ValueError, match='at most 1 together'):
        drop_conditions(jax.random.key(0), 4, text=0.6, anchor=0.3, both=0.2)


def test_training_sees_what_the_solver_holds_on_its_way_from_a_corrupted_source():
    """From the noised source, with the true prediction at every step, x is at each level what `sdedit_noise` says."""
    table, start = refiner_levels(RefinerProcess(scale_clean=1.0, scale_noisy=1.0)), 499
    levels = sdedit_levels(table, 5, start)
    at = [Level(*(leaf[i] for leaf in levels)) for i in range(6)]
    x0, source, count = 0.5, 0.9, 200_000
    noise = jax.random.normal(jax.random.key(0), (6, count))
    x, last = at[0].alpha * source + at[0].sigma * noise[0], at[0]
    for i in range(4):
        x, last = dpmpp_2m_sde_step(x, x0, x0, last, at[i], at[i + 1], noise[i + 1]), at[i]
        t = int(at[i + 1].t)
        exact = Level(*(leaf[t] for leaf in table))
        clean, worn = jnp.full((1, 1), x0), jnp.full((1, 1), source)
        seen = sdedit_noise(clean, worn, jnp.zeros((1, 1)), jnp.array([t]), table, jnp.array([start]))
        mean = float(exact.alpha * x0 + exact.sigma * seen[0, 0])
        assert float(x.mean()) == pytest.approx(mean, abs=4 / count**0.5 + 2e-3)
        assert float(x.std()) == pytest.approx(exact.sigma, rel=0.02)
    assert mean - exact.alpha * x0 < 0.1 * (source - x0)  # almost forgotten


def test_a_flawless_source_leaves_the_noise_as_it_is():
    table = refiner_levels(RefinerProcess())
    t = jnp.array([0, 100, 300, 599])
    np.testing.assert_array_equal(sdedit_noise(X0, X0, NOISE, t, table, jnp.full(4, 599)), NOISE)
    worse = sdedit_noise(X0, X0 + 1, NOISE, t, table, jnp.full(4, 599)) - NOISE
    start = table.alpha[599] / table.sigma[599]  # at the start x has the whole error: alpha (x0 + error) + sigma noise
    np.testing.assert_allclose(worse[3], start, rtol=1e-4)
