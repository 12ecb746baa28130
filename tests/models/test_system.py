"""What a model's networks make of a prompt."""

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax.models.clip import preprocess
from st2v_jax.models.system import encode_prompt, system


def test_no_anchor_is_a_mid_grey_image(tiny_config, tiny_params):
    networks = system(tiny_config)
    ids = jnp.zeros((2, tiny_config.text.max_tokens), jnp.int32)
    given = encode_prompt(networks, tiny_params, ids, ids).null_anchor
    grey = np.zeros((1, *tiny_config.frame_size, 3), np.float32)  # of the pixel values from -1 to 1
    pixels = preprocess(grey, tiny_config.image.image_size)
    expected = jax.jit(networks.image)(tiny_params['image'], pixels)
    assert given.shape == (2, *expected.shape[1:])
    np.testing.assert_allclose(given, np.repeat(expected, 2, 0), atol=1e-5)
    assert np.abs(expected).max() > 1e-3, 'not an embedding of zeros'
