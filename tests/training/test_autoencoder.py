"""The objective of the autoencoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.stage import Stage

from st2v_jax.models import build
from st2v_jax.training import autoencoder, pools

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_it_learns_and_measures_the_scale_of_its_latents():
    stage = Stage('autoencoder', {})
    losses = stage.run(60)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    networks, model = stage.finish()
    frames = pools.draw_frames(jax.random.key(9), stage.objective.data, 0, model.frame_size)
    latents, _ = build.vae(model)(networks['vae'], frames, method='encode')
    assert 0.3 < float(jnp.std(latents * model.scale_factor)) < 3  # the scale gives them a deviation of about one


def test_the_refiners_autoencoder_starts_as_that_of_streaming():
    vae = Stage('autoencoder', {}).objective.params['vae']
    params = Stage('refiner_vae', {'vae': vae}).objective.params
    jax.tree.map(np.testing.assert_array_equal, params['refiner_vae'], vae)


def test_blur_costs_edges():
    frames = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    assert [float(part) for part in autoencoder.reconstruction(frames, frames)] == [0, 0, 0]
    *_, offset = autoencoder.reconstruction(frames + 0.5, frames)
    *_, blurred = autoencoder.reconstruction(jnp.zeros_like(frames), frames)
    assert float(offset) < 1e-5 < float(blurred)
