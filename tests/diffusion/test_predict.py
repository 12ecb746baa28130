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


def test_the_network_receives_the_step_once_per_example():
    told = []
    denoise = predict.denoiser(lambda x, t: (told.append(t), x)[1], 'v')
    denoise(X0, Level(1.0, 0.0, 7))
    np.testing.assert_array_equal(told[0], [7, 7, 7])


def test_pure_noise_has_a_finite_clean_prediction():
    x0 = predict.denoiser(lambda x, t: -X0, 'v')(NOISE, Level(0.0, 1.0, 999))
    np.testing.assert_array_equal(x0, X0)
