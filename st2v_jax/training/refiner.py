"""The objective of the stage refiner: turn an enlarged video of the Video-LDM into one of the world at the larger size.

The refinement stage uses its network for only one thing, SDEdit from an enlarged video with noise, so the training does
the same. The noisiest levels, which SDEdit never reaches, are left out; below them, the network sees what SDEdit holds
at that level (`diffusion.loss`): the flawed video as well as noise. This is our addition; the release does not say how
its Refiner was trained.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from st2v_jax.data import pool
from st2v_jax.diffusion.log_snr import refiner_levels
from st2v_jax.diffusion.loss import diffusion_loss, drop_conditions, sdedit_noise
from st2v_jax.models import build
from st2v_jax.models.build import ModelConfig
from st2v_jax.refinement.canvas import fit, to_canvas
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training.batch import corrupted, each_frame
from st2v_jax.training.objective import Objective, Params, require
from st2v_jax.training.pools import captioned_pool, video, windows
from st2v_jax.weights.layout import refinement


class Pairs(NamedTuple):
    """A pool of videos of t frames on the Refiner's canvas: leaves [rows, n, ...]; a batch has leaves [b, ...].

    Attributes:
      clean: [..., t, h, w, c] float16, scaled latents of the world, rendered at the size of the canvas.
      source: the same of the world rendered at the size of the Video-LDM, decoded from noisy latents, and enlarged.
      ids: [..., captions, 77] token ids.
    """

    clean: jax.Array
    source: jax.Array
    ids: jax.Array


class Data(NamedTuple):
    """What batches are drawn from.

    Attributes:
      pairs: the pool.
      empty_ids: [77], the tokens of the empty text.
    """

    pairs: Pairs
    empty_ids: jax.Array


def objective(
    config: ConfigDict, model: ModelConfig, params: Params, tokenizer: Tokenizer, mesh: Mesh, key: jax.Array
) -> Objective:
    """Trains 'refiner', with the networks of `layout.refinement` and the autoencoder of the Video-LDM."""
    names = refinement(model)
    require(params, dict.fromkeys(('vae', names['vae'], names['text'])), config.stage)
    dtype = jnp.dtype(config.dtype)
    network, tower = build.refiner(model, dtype), build.text_tower(model.for_refinement, dtype)
    started = {'refiner': params.get('refiner') or build.init(key, network), names['text']: params[names['text']]}
    data = make_data(config, model, params, tokenizer, mesh, jax.random.fold_in(key, 1))
    table, (first, last) = refiner_levels(model.refiner.process), config.starts

    def examples(data, key):
        batch_key, drop_key, noise_key, t_key = jax.random.split(key, 4)
        batch = draw(batch_key, data.pairs, model.refiner.length)
        no_text, _ = drop_conditions(drop_key, len(batch.ids), text=config.dropout, anchor=0, both=0)
        ids = jnp.where(no_text[:, None], data.empty_ids, batch.ids)
        start, t = sdedit_times(t_key, len(ids), first, last)
        noise = jax.random.normal(noise_key, batch.clean.shape)
        return ids, batch.clean, sdedit_noise(batch.clean, batch.source, noise, t, table, start), t

    def loss(params, examples, remat=config.remat):
        ids, clean, noise, t = examples
        text = tower(params[names['text']], ids)
        keys_values = network(params['refiner'], text, method='keys_values')
        predict = partial(network, params['refiner'], keys_values=keys_values, remat=remat)
        return diffusion_loss(predict, clean, noise, t, table, 'v'), {}

    is_trained = lambda path: path.startswith('refiner/')
    finish = lambda new, model: ({**params, **new}, model)
    return Objective(started, is_trained, data, examples, loss, partial(loss, remat='none'), finish)


def sdedit_times(key: jax.Array, count: int, first: int, last: int) -> tuple[jax.Array, jax.Array]:
    """Noise levels [count] where SDEdit starts, uniform in first..last, and levels [count] where it is, in 0..start."""
    start_key, t_key = jax.random.split(key)
    start = jax.random.randint(start_key, (count,), first, last + 1)
    return start, jax.random.randint(t_key, (count,), 0, start + 1)


def draw(key: jax.Array, pairs: Pairs, length: int) -> Pairs:
    """The batch for a key: from each row of the pool, `length` frames in a row of a video, and one of its captions."""
    video_key, caption_key, window_key = jax.random.split(key, 3)
    chosen = pool.draw(video_key, pairs)
    rows, frames = chosen.clean.shape[:2]
    keys = jax.random.split(window_key, rows)
    start, _ = jax.vmap(partial(windows, length=frames, frames=length, anchored=False))(keys)
    cut = jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, length).astype(jnp.float32))
    return Pairs(cut(chosen.clean, start), cut(chosen.source, start), pool.draw(caption_key, chosen.ids))


def make_data(
    config: ConfigDict, model: ModelConfig, params: Params, tokenizer: Tokenizer, mesh: Mesh, key: jax.Array
) -> Data:
    """The pool of `config.data.scenes` training scenes with `config.data.frames` frames each, encoded."""
    data, dtype, own = config.data, jnp.dtype(config.dtype), model.for_refinement
    vae, large_vae = build.vae(model, dtype), build.vae(own, dtype)
    small = model.frame_size
    canvas = fit(small, model.refiner.box, model.refiner.unet, own.vae.downsampling)

    def encode(params, videos):
        videos = to_canvas(videos, canvas, 'paper')
        latents, _ = each_frame(partial(large_vae, params['large_vae'], method='encode'), videos)
        return (latents * own.scale_factor).astype(jnp.float16)

    def make(params, keys, scenes):
        clean, seen = (jax.vmap(partial(video, data, size))(keys, scenes) for size in (canvas.size, small))
        latents, _ = each_frame(partial(vae, params['vae'], method='encode'), seen)
        latents = jax.vmap(partial(corrupted, config.source_noise))(keys, latents * model.scale_factor)
        seen = each_frame(partial(vae, params['vae'], method='decode'), latents / model.scale_factor)
        return encode(params, clean), encode(params, jnp.clip(seen, -1, 1))

    names = refinement(model)
    encoders = {'vae': params['vae'], 'large_vae': params[names['vae']]}
    (clean, source), ids = captioned_pool(make, encoders, tokenizer, config, mesh, key)
    return Data(Pairs(clean, source, ids), tokenizer.ids([''])[0])
