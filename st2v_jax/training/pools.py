"""Pools of the small world: before the first step, scenes are rendered, encoded, and decoded as conditioning frames.

Conditioning frames and anchors are what the autoencoder decodes from noisy latents.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh
from ml_collections import ConfigDict

from st2v_jax.data import caption_tokens, pool, world
from st2v_jax.models import build
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.clip import preprocess
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training.batch import Batch, Data, corrupted, each_frame, window
from st2v_jax.training.objective import Params
from st2v_jax.video_io import to_floats

LAST_FRAME = 1200  # scenes are rendered at times 0..LAST_FRAME, the length of the longest videos


class Videos(NamedTuple):
    """A pool of videos of t frames: leaves [rows, n, ...], see data/pool.py.

    Attributes:
      latents: [..., t, h, w, c] float16, scaled.
      ids: [..., captions, 77] token ids.
      pixels: [..., t, H, W, 3] uint8, decoded from noisy latents, as conditioning frames; None without memory.
      anchors: [..., t, e] float16, image embeddings of those pixels; None without anchor.
    """

    latents: jax.Array
    ids: jax.Array
    pixels: jax.Array | None = None
    anchors: jax.Array | None = None


def make_data(
    config: ConfigDict, model: ModelConfig, params: Params, tokenizer: Tokenizer, mesh: Mesh, key: jax.Array
) -> Data:
    """The pool of `config.data.scenes` training scenes with `config.data.frames` frames each, encoded."""
    data, dtype = config.data, jnp.dtype(config.dtype)
    vae, image = build.vae(model, dtype), build.image_tower(model, dtype)
    side = model.image.image_size

    def embed(params, pixels):
        return image(params['image'], preprocess(pixels, side))

    def make(params, keys, scenes):
        frames = jax.vmap(partial(video, data, model.frame_size))(keys, scenes)
        encode, decode = (partial(vae, params['vae'], method=method) for method in ('encode', 'decode'))
        latents = (each_frame(encode, frames)[0] * model.scale_factor).astype(jnp.float16)
        pixels = anchors = None
        if config.memory:
            seen = jax.vmap(partial(corrupted, config.conditioning_noise))(keys, latents)
            seen = each_frame(decode, seen / model.scale_factor)
            pixels = to_bytes(seen)
            if config.anchor:
                anchors = each_frame(partial(embed, params), jnp.clip(seen, -1, 1)).astype(jnp.float16)
        return latents, pixels, anchors

    encoders = {name: params[name] for name in ('vae', 'image') if name in params}
    (latents, pixels, anchors), ids = captioned_pool(make, encoders, tokenizer, config, mesh, key)
    grey = jnp.zeros((1, *model.frame_size, 3))
    empty_anchor = jax.jit(embed)(encoders, grey)[0].astype(jnp.float32) if config.anchor else None
    return Data(Videos(latents, ids, pixels, anchors), tokenizer.ids([''])[0], empty_anchor)


def captioned_pool(
    make: Callable, params: Params, tokenizer: Tokenizer, config: ConfigDict, mesh: Mesh, key: jax.Array
) -> tuple[Any, jax.Array]:
    """A pool of `config.data.scenes` training scenes and their captions.

    make: (params, keys [b], scenes [b]) -> tree of arrays [b, ...].

    Returns:
      The results of `make` with leaves [rows, n, ...], and token ids [rows, n, captions, 77].
    """
    data = config.data
    indices = world.split_indices('train', data.seed, 0, data.scenes)
    ids, _ = caption_tokens.token_table(tokenizer, data.seed, indices, data.captions)

    def columns(indices, params):
        rows, n = indices.shape
        scenes = indices.reshape(-1)
        keys = jax.vmap(partial(jax.random.fold_in, key))(scenes)
        made = make(params, keys, scenes)
        return jax.tree.map(partial(rearrange, pattern='(r n) ... -> r n ...', r=rows, n=n), made)

    made = pool.fill(
        columns,
        pool.rows(indices, config.batch_size, mesh),
        params,
        mesh,
        columns=data.columns,
        compiler_options=config.compiler_options.to_dict(),
    )
    return made, pool.place(pool.rows(ids, config.batch_size, mesh), mesh)


def draw(key: jax.Array, videos: Videos, model: ModelConfig, *, anchored: bool) -> Batch:
    """The batch for a key: from each row of the pool, a window of one video and one of its captions."""
    video_key, caption_key, window_key = jax.random.split(key, 3)
    chosen = pool.draw(video_key, videos)
    rows, length = chosen.latents.shape[:2]
    keys = jax.random.split(window_key, rows)
    start, anchor = jax.vmap(partial(windows, length=length, frames=model.frames, anchored=anchored))(keys)

    def cut(values, count):
        return jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, count))(values, start)

    anchors = None
    if chosen.anchors is not None:
        anchors = jax.vmap(lambda row, i: row[i])(chosen.anchors, anchor).astype(jnp.float32)
    return Batch(
        latents=cut(chosen.latents, model.frames).astype(jnp.float32),
        ids=pool.draw(caption_key, chosen.ids),
        frames=None if chosen.pixels is None else to_floats(cut(chosen.pixels, model.conditioning_frames)),
        anchor=anchors,
    )


def windows(key: jax.Array, length: int, frames: int, *, anchored: bool) -> tuple[jax.Array, jax.Array]:
    """A random `batch.window` for a key."""
    keys = iter(jax.random.split(key))
    return window(length, frames, lambda count: jax.random.randint(next(keys), (), 0, count), anchored=anchored)


def video(data: ConfigDict, size: tuple[int, int], key: jax.Array, scene: jax.Array) -> jax.Array:
    """`data.frames` consecutive frames [t, h, w, 3] of a scene, from a random time on; size is (h, w)."""
    start = jax.random.randint(key, (), 0, LAST_FRAME + 2 - data.frames)
    return world.render(world.scene(data.seed, scene), start + jnp.arange(data.frames), size)


def draw_frames(key: jax.Array, scenes: jax.Array, seed: int, size: tuple[int, int]) -> jax.Array:
    """Frames [b, h, w, 3] of scenes with indices [b, n]: for each row a random scene, at a random time."""
    scene_key, time_key = jax.random.split(key)
    chosen = pool.draw(scene_key, scenes)
    times = jax.random.randint(time_key, (len(chosen), 1), 0, LAST_FRAME + 1)
    made = jax.vmap(partial(world.scene, seed))(chosen)
    return jax.vmap(partial(world.render, size=size))(made, times)[:, 0]


def to_bytes(frames: jax.Array) -> jax.Array:
    """Converts floats in [-1, 1] to uint8, in a traced program."""
    return jnp.clip(jnp.round((frames + 1) * 127.5), 0, 255).astype(jnp.uint8)
