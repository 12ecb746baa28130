import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.diffusion import predict
from st2v_jax.diffusion.schedule import DiffusionConfig, Level, noise_levels

SHAPE = (3, 4, 2, 2, 4)
X0, NOISE = jax.random.normal(jax.random.key(0), (2, *SHAPE))
LEVELS = Level(*(jnp.asarray(leaf)[jnp.array([10, 400, 900])] for leaf in noise_levels(DiffusionConfig())))


def test_every_prediction_leads_back_to_what_x_was_made_of():
    x = predict.add_noise(X0, NOISE, LEVELS)
    v = predict.v_from(X0, NOISE, LEVELS)
    np.testing.assert_allclose(predict.x0_from_noise(x, NOISE, LEVELS), X0, atol=1e-5)
    np.testing.assert_allclose(predict.x0_from_v(x, v, LEVELS), X0, atol=1e-5)
    np.testing.assert_allclose(predict.noise_from_v(x, v, LEVELS), NOISE, atol=1e-5)
    np.testing.assert_allclose(predict.noise_from_x0(x, X0, LEVELS), NOISE, atol=1e-4)


@pytest.mark.parametrize('prediction, answer', [('epsilon', NOISE), ('v', predict.v_from(X0, NOISE, LEVELS))])
def test_denoiser_finds_the_clean_part(prediction, answer):
    denoise = predict.denoiser(lambda x, t: answer, prediction)
    np.testing.assert_allclose(denoise(predict.add_noise(X0, NOISE, LEVELS), LEVELS), X0, atol=1e-5)


def test_the_network_is_told_the_step_once_per_example():
    told = []
    denoise = predict.denoiser(lambda x, t: (told.append(t), x)[1], 'v')
    denoise(X0, Level(1.0, 0.0, 7))
    np.testing.assert_array_equal(told[0], [7, 7, 7])


def test_pure_noise_has_a_finite_clean_prediction():
    x0 = predict.denoiser(lambda x, t: -X0, 'v')(NOISE, Level(0.0, 1.0, 999))
    np.testing.assert_array_equal(x0, X0)


def branching(*branches):
    """A network whose answer depends on the branch alone; branches [b,...] stacked as its conditions would be."""
    def network(x, t):
        assert len(x) == len(t) == len(branches) * SHAPE[0]
        return jnp.concatenate(branches)
    return network


T = jnp.zeros(SHAPE[0])
NULL, TEXT, FULL = jax.random.normal(jax.random.key(1), (3, *SHAPE))


def test_scale_one_is_the_conditional_prediction():
    np.testing.assert_allclose(predict.single_scale(branching(NULL, FULL), 1.0)(X0, T), FULL, atol=1e-6)
    np.testing.assert_allclose(predict.text_and_anchor(branching(NULL, TEXT, FULL), 1.0, 1.0)(X0, T), FULL, atol=1e-6)


def test_equal_branches_give_the_branch():
    np.testing.assert_allclose(predict.text_and_anchor(branching(FULL, FULL, FULL), 7.5, 7.5)(X0, T), FULL, atol=1e-6)


def test_each_scale_moves_along_its_own_condition():
    guided = lambda text, anchor: predict.text_and_anchor(branching(NULL, TEXT, FULL), text, anchor)(X0, T)
    np.testing.assert_allclose(guided(0.0, 0.0), NULL, atol=1e-6)
    np.testing.assert_allclose(guided(1.0, 0.0), TEXT, atol=1e-6)
    np.testing.assert_allclose(guided(3.0, 2.0) - guided(3.0, 1.0), FULL - TEXT, atol=1e-5)
    np.testing.assert_allclose(guided(4.0, 2.0) - guided(3.0, 2.0), TEXT - NULL, atol=1e-5)


def test_examples_and_their_branches_stay_in_order():
    base = jnp.arange(3.0)[:, None, None, None, None] * jnp.ones(SHAPE)
    network = lambda x, t: x + jnp.repeat(jnp.array([0.0, 10.0]), 3)[:, None, None, None, None]
    np.testing.assert_allclose(predict.single_scale(network, 2.0)(base, T), base + 20)


def test_rescaled_guidance_has_the_spread_of_the_conditional_example_by_example():
    full = FULL * jnp.array([0.5, 1.0, 4.0])[:, None, None, None, None]
    network = branching(NULL, full)
    spread = lambda y: np.std(y, axis=(1, 2, 3, 4), ddof=1)
    plain = predict.single_scale(network, 7.5)(X0, T)
    rescaled = predict.single_scale(network, 7.5, rescale=1.0)(X0, T)
    np.testing.assert_allclose(spread(rescaled), spread(full), rtol=1e-5)
    np.testing.assert_allclose(predict.single_scale(network, 7.5, rescale=0.25)(X0, T),
                               0.25 * rescaled + 0.75 * plain, atol=1e-4)
