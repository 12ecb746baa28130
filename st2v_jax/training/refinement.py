"""The objective of the stage refiner: a video of the Video-LDM, enlarged, becomes one of the world at that size.

The refinement stage uses its network in one way only: SDEdit (section 8 of the method) from a noised enlarged video. So
it is trained on just that: entries up to `start` of its levels, and what SDEdit holds there (`diffusion.loss`). That
it sees what it is to make good, and not noise alone, is our addition; the release says nothing of its training.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from st2v_jax.data import pool
from st2v_jax.diffusion.loss import diffusion_loss, drop_conditions, sdedit_noise
from st2v_jax.diffusion.refiner_schedule import refiner_levels
from st2v_jax.models import build
from st2v_jax.streaming.canvas import fit, place
from st2v_jax.training.denoising import captioned_pool, each_frame, video, windows, worn
from st2v_jax.training.objective import Objective, require
from st2v_jax.weights import refinement


class Pairs(NamedTuple):
    """A pool of videos of t frames on the Refiner's canvas: leaves [rows, n, ...]; a batch has leaves [b, ...].

    Attributes:
      clean: [..., t, h, w, c] float16, scaled latents of the world at the size of the canvas.
      source: the same of the world at the size of the Video-LDM, through its autoencoder, worn, and enlarged.
      text: [..., captions, 77, d] float16.
    """

    clean: Any
    source: Any
    text: Any


class Data(NamedTuple):
    """The pool, and the text that stands for none: [77, d]."""

    pairs: Pairs
    empty_text: Any


def objective(config, model, params, tokenizer, mesh, key) -> Objective:
    """Trains 'refiner', from what `weights.refinement` says it works with and the autoencoder of the Video-LDM."""
    names = refinement(model)
    require(params, dict.fromkeys(('vae', names['vae'], names['text'])), config.stage)
    network = build.refiner(model, jnp.dtype(config.dtype))
    started = params.get('refiner') or build.init(key, network)
    data = make_data(config, model, params, tokenizer, mesh, jax.random.fold_in(key, 1))
    table, start = refiner_levels(model.refiner.process), model.refiner.start

    def loss(params, data, key):
        batch_key, drop_key, noise_key, t_key = jax.random.split(key, 4)
        batch = draw(batch_key, data.pairs, model.refiner.length)
        no_text, _ = drop_conditions(drop_key, len(batch.text), text=config.dropout, anchor=0, both=0)
        text = jnp.where(no_text[:, None, None], data.empty_text, batch.text)
        contexts = network(params['refiner'], text, method='keys_values')
        t = jax.random.randint(t_key, (len(text),), 0, start + 1)
        noise = jax.random.normal(noise_key, batch.clean.shape)
        noise = sdedit_noise(batch.clean, batch.source, noise, t, table, start)
        predict = partial(network, params['refiner'], contexts=contexts)
        return diffusion_loss(predict, batch.clean, noise, t, table, 'v'), {}

    return Objective({'refiner': started}, lambda path: True, data, loss, lambda new, model: ({**params, **new}, model))


def draw(key, pairs, length) -> Pairs:
    """The batch of a key: of every row of the pool one video, one of its captions, and `length` successive frames."""
    video_key, caption_key, window_key = jax.random.split(key, 3)
    chosen = pool.draw(video_key, pairs)
    rows, frames = chosen.clean.shape[:2]
    keys = jax.random.split(window_key, rows)
    start, _ = jax.vmap(partial(windows, length=frames, frames=length, anchored=False))(keys)
    cut = jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, length).astype(jnp.float32))
    text = pool.draw(caption_key, chosen.text).astype(jnp.float32)
    return Pairs(cut(chosen.clean, start), cut(chosen.source, start), text)


def make_data(config, model, params, tokenizer, mesh, key) -> Data:
    """The pool of `config.data.scenes` training scenes of `config.data.frames` frames, encoded."""
    data, dtype, own = config.data, jnp.dtype(config.dtype), model.for_refinement
    vae, large_vae, text = build.vae(model, dtype), build.vae(own, dtype), build.text_tower(own, dtype)
    small = model.image_size
    canvas = fit((small, small), model.refiner.box, model.refiner.unet, own.vae.downsampling)

    def encode(params, videos):
        videos = place(videos, canvas, 'paper')
        latents, _ = each_frame(partial(large_vae, params['large_vae'], method='encode'), videos)
        return (latents * own.scale_factor).astype(jnp.float16)

    def make(params, keys, scenes):
        clean, seen = (jax.vmap(partial(video, data, size))(keys, scenes) for size in (canvas.size[0], small))
        latents, _ = each_frame(partial(vae, params['vae'], method='encode'), seen)
        latents = jax.vmap(partial(worn, config.source_noise))(keys, latents * model.scale_factor)
        seen = each_frame(partial(vae, params['vae'], method='decode'), latents / model.scale_factor)
        return encode(params, clean), encode(params, jnp.clip(seen, -1, 1))

    names = refinement(model)
    encoders = {'vae': params['vae'], 'large_vae': params[names['vae']], 'text': params[names['text']]}
    (clean, source), states, empty_text = captioned_pool(make, text, encoders, tokenizer, config, mesh, key)
    return Data(Pairs(clean, source, states), empty_text)
