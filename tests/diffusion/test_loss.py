import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.diffusion.loss import diffusion_loss, drop_conditions
from st2v_jax.diffusion.predict import denoiser
from st2v_jax.diffusion.schedule import DiffusionConfig, Level, noise_levels

CONFIG = DiffusionConfig(prediction='v', zero_terminal_snr=True)
TABLE = noise_levels(CONFIG)
X0, NOISE = jax.random.normal(jax.random.key(0), (2, 4, 3, 2, 2, 4))
T = jnp.array([0, 300, 700, 998])


@pytest.mark.parametrize('prediction', ['epsilon', 'v'])
def test_the_network_of_no_loss_denoises_exactly(prediction):
    """The target of training and the prediction that sampling reads are one thing."""
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
