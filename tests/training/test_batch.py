"""What pools and clips share: the noise in conditioning frames."""

from functools import partial

import jax
import jax.numpy as jnp

from st2v_jax.training import batch


def test_the_noise_of_conditioning_frames_has_one_level_per_video():
    videos = jnp.zeros((50, 8, 4, 4, 4))
    made = jax.vmap(partial(batch.corrupted, 0.5))(jax.random.split(jax.random.key(0), 50), videos)
    levels = jnp.std(made, axis=(2, 3, 4))
    assert float(levels.max()) < 0.6 and float(jnp.std(levels.mean(1))) > 0.08
    assert float(jnp.max(jnp.abs(levels - levels.mean(1, keepdims=True)))) < 0.2
