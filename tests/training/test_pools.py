"""Pools of the small world, and the batches that are drawn from them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs_of import stage_config
from training.stage import random_encoders

from st2v_jax import sharding
from st2v_jax.data import caption_tokens
from st2v_jax.models import build
from st2v_jax.training import pools
from st2v_jax.video_io import to_floats

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_the_memory_of_a_batch_is_the_beginning_of_what_is_denoised():
    config = stage_config('apm')
    model = build.ModelConfig.from_dict(config.model.to_dict())
    mesh = sharding.make_mesh({'data': -1}, jax.devices()[:1])
    tokenizer = caption_tokens.tokenizer_for(model.text.vocab_size)
    videos = pools.make_data(config, model, random_encoders(), tokenizer, mesh, jax.random.key(1)).videos
    assert videos.pixels.dtype == jnp.uint8 and videos.latents.dtype == jnp.float16
    batch = pools.draw(jax.random.key(5), videos, model, anchored=True)
    again = pools.draw(jax.random.key(5), videos, model, anchored=True)
    jax.tree.map(np.testing.assert_array_equal, batch, again)
    f, m = model.frames, model.memory
    for i in range(len(batch.ids)):
        # of 32 frames, 17-32 are denoised, 17-24 are conditioning frames, and the anchor is one of 1-16
        row = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), videos)
        (scene,) = [n for n in range(len(row.latents)) if (row.latents[n, f:] == np.float16(batch.latents[i])).all()]
        np.testing.assert_allclose(to_floats(row.pixels[scene, f : f + m]), batch.frames[i], atol=1e-6)
        assert any((row.anchors[scene, n] == np.float16(batch.anchor[i])).all() for n in range(f))


def test_windows_of_the_two_chunk_stage():
    keys = jax.random.split(jax.random.key(0), 400)
    start, anchor = jax.vmap(partial(pools.windows, length=32, frames=16, anchored=True))(keys)
    start, anchor = np.asarray(start), np.asarray(anchor)
    assert set(start) == {16} and set(anchor) == set(range(16))


def test_windows_of_the_other_stages_lie_anywhere_in_the_sample():
    keys = jax.random.split(jax.random.key(0), 400)
    start, _ = jax.vmap(partial(pools.windows, length=20, frames=16, anchored=False))(keys)
    assert set(np.asarray(start)) == set(range(5))
    with pytest.raises(ValueError, match='clips of 31 frames are too short: this stage needs 32'):
        pools.windows(keys[0], 31, 16, anchored=True)


def test_bytes_keep_frames():
    frames = jnp.linspace(-1, 1, 256)
    np.testing.assert_allclose(to_floats(pools.to_bytes(frames)), frames, atol=1e-6)
