"""The denoising objective of the stages video_ldm, cam and apm (section 7 of the method, "Training") and of ablations.

Videos of the small world are drawn, encoded and, as conditioning frames, decoded again once, before the first step; a
step then reads latents, pixels and tokens from the pool. Real clips are encoded in the step, unless they hold their
latents; their anchor is its own pixels, as are conditioning frames that are not to be noisy. The text tower runs in the
step, so that it can be trained too, unless clips hold its embeddings.
"""

import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from st2v_jax import sharding
from st2v_jax.data import captions, encoding, pool, world
from st2v_jax.diffusion.loss import diffusion_loss, drop_conditions
from st2v_jax.diffusion.schedule import noise_levels
from st2v_jax.models import build
from st2v_jax.models.ablations import ATTENTION, CONCATENATION
from st2v_jax.models.clip import preprocess
from st2v_jax.models.system import remembered
from st2v_jax.models.system import system as make_system
from st2v_jax.training import clips as filmed
from st2v_jax.training import state
from st2v_jax.training.autoencoder import LAST_FRAME
from st2v_jax.training.objective import Objective, require
from st2v_jax.video_io import to_floats

WORLD = 'world'  # the config's data.source of the pool


class Videos(NamedTuple):
    """A pool of videos of t frames: leaves [rows, n, ...], see data/pool.py.

    Attributes:
      latents: [..., t, h, w, c] float16, scaled.
      ids: [..., captions, 77] token ids.
      pixels: [..., t, H, W, 3] uint8, decoded from noisy latents: what CAM is conditioned on. None without memory.
      anchors: [..., t, e] float16, image embeddings of those pixels. None without anchor.
    """

    latents: Any
    ids: Any
    pixels: Any = None
    anchors: Any = None


class Batch(NamedTuple):
    """What a step trains on: latents [b,f,h,w,c], ids [b,77], frames [b,m,H,W,3] or None, anchor [b,e] or None.

    mask [b,m]: which of the frames are given; None is all of them. Of clips also text [b,77,c], where their captions
    were encoded beforehand, and wear [b,m,h,w,c], the noise in the latents that frames are decoded from.
    """

    latents: Any
    ids: Any
    frames: Any = None
    anchor: Any = None
    mask: Any = None
    text: Any = None
    wear: Any = None


class Data(NamedTuple):
    """A pool, or a batch of `filmed.Clips`; and the conditions that stand for none: empty_ids [77], empty_anchor [e].

    Where anchors are pixels, so is the empty one: [H,W,3]; where there are texts, so is the empty one: [77,c].
    """

    videos: Videos
    empty_ids: Any
    empty_anchor: Any
    empty_text: Any = None


def objective(config, model, params, tokenizer, mesh, key) -> Objective:
    """Trains what `config.trained` matches and `config.frozen` does not, both patterns of parameter paths."""
    if config.anchor and model.apm is None:
        raise ValueError(f'stage {config.stage} has an anchor, and its model no APM')
    require(params, ('vae', 'text') + ('unet',) * config.memory + ('image', 'cam') * config.anchor, config.stage)
    fresh = build.init(key, build.denoiser(model))
    started = {'text': params['text'], 'unet': params.get('unet') or fresh['unet']}
    if config.memory:
        started['cam'] = params.get('cam') or build.copy_encoder({**started, 'cam': fresh['cam']})['cam']
    if config.anchor:
        started['apm'] = params.get('apm') or fresh['apm']
    if config.memory and model.cam.fusion == CONCATENATION:
        started['vae'] = params['vae']
    if model.initial:  # first chunks stay those of the UNet that this stage starts from
        params = {**params, 'initial': params.get('initial') or started['unet']}
    data = steps = None
    if config.data.source != WORLD:
        started |= {name: params[name] for name in ('vae',) + ('image',) * config.anchor}
        steps, spared = film(config, model, started, tokenizer, mesh)
        # the autoencoder decodes what is worn, and encodes what Conc-Cond is given
        idle = spared - {'vae'} if noise_of_clips(config) or model.cam.fusion == CONCATENATION else spared
        started = {name: network for name, network in started.items() if name not in idle}
    else:
        data = make_data(config, model, params, tokenizer, mesh, jax.random.fold_in(key, 1))
    draw, loss = functions(config, model)
    finish = lambda trained, model: ({**params, **trained}, model)
    return Objective(started, partial(is_trained, config), data, draw, loss, partial(loss, remat='none'), finish, steps)


def is_trained(config, path):
    """Whether the parameter of a path is trained: `config.trained` matches it and `config.frozen` does not."""
    return bool(re.fullmatch(config.trained, path)) and not re.fullmatch(config.frozen, path)


def noise_of_clips(config):
    """`config.conditioning_noise` of real clips, 0 where a step adds none."""
    return config.conditioning_noise if config.memory and config.data.source != WORLD else 0


def functions(config, model):
    """`draw` and `loss` of the Objective."""
    dtype, table = jnp.dtype(config.dtype), noise_levels(model.diffusion)
    system = make_system(model, dtype)
    network, tower = system.denoiser, system.text
    filmed_clips, wearing = config.data.source != WORLD, noise_of_clips(config)

    def examples(data, key):
        batch_key, mask_key, drop_key, noise_key, t_key = jax.random.split(key, 5)
        if filmed_clips:
            batch = of_clips(data.videos, memory=filmed.pixel_frames(config, model))
            if wearing:
                shape = len(batch.ids), model.conditioning_frames, *model.latent_shape[1:]
                batch = batch._replace(wear=wear(batch_key, shape, wearing))
        else:
            batch = draw(batch_key, data.videos, model, anchored=config.anchor)
        if config.memory and model.cam.fusion != ATTENTION:
            batch = batch._replace(mask=masks(mask_key, len(batch.ids), model.frames, model.memory))
        batch = drop(drop_key, batch, data, config.dropout)
        t = jax.random.randint(t_key, (len(batch.ids),), 0, model.diffusion.steps)
        return batch, jax.random.normal(noise_key, (len(t), *model.latent_shape)), t

    def loss(params, examples, remat=config.remat):
        batch, noise, t = examples
        if filmed_clips:
            batch = encoded(batch, params, model, dtype)
        text = tower(params['text'], batch.ids) if batch.text is None else batch.text.astype(dtype)
        memory = None
        if batch.frames is not None:
            memory = remembered(system, params, batch.frames, batch.mask)
        params = {name: params[name] for name in ('unet', 'cam', 'apm') if name in params}
        anchor = batch.anchor
        if anchor is not None:
            anchor = network(params, anchor, method='anchor_tokens')
        condition = network(params, text, memory, anchor, method='condition')
        predict = partial(network, params, condition=condition, remat=remat)
        return diffusion_loss(predict, batch.latents, noise, t, table, model.diffusion.prediction), {}

    return examples, loss


def film(config, model, params, tokenizer, mesh):
    """(Objective.steps for clips, the Data of each step; the networks whose results they hold, see `filmed.feed`).

    A network that is trained runs in the step, whatever clips hold.
    """
    fixed = {'vae', 'text'} - set(state.split(params, partial(is_trained, config))[0])
    start, spared = filmed.feed(config, model, params, tokenizer, mesh, fixed)
    ids, text = tokenizer.ids(['']), None
    if 'text' in spared:
        text = np.asarray(jax.jit(partial(encoding.embed, model))({'text': params['text']}, ids)[0])
    none = ids[0], np.zeros((*model.frame_size, 3), np.float32), text
    none = sharding.place(none, sharding.replicated(mesh))
    return (lambda number: (Data(clips, *none) for clips in start(number))), spared


def of_clips(clips, *, memory) -> Batch:
    """Clips as a batch whose anchor, and latents if they hold none, are pixels still.

    The pixels of the first `memory` frames, if any, are its memory.
    """
    frames = to_floats(clips.pixels[:, :memory]) if memory else None
    latents = clips.pixels if clips.latents is None else clips.latents
    anchor = None if clips.anchor is None else to_floats(clips.anchor)
    return Batch(latents, clips.ids, frames, anchor, text=clips.text)


def wear(key, shape, noise):
    """The noise in the latents of conditioning frames [b,m,h,w,c]: that of `worn`.

    Anchors have none: one that is dropped is exactly grey, which no autoencoder gives back.
    """
    return jax.vmap(partial(worn, noise))(jax.random.split(key, shape[0]), jnp.zeros(shape))


def encoded(batch: Batch, params, model, dtype) -> Batch:
    """What `of_clips` made, with latents, worn frames and the anchor's embedding in place of pixels and noise."""
    autoencoder = build.vae(model, dtype)
    latents, frames, anchor = batch.latents, batch.frames, batch.anchor
    if latents.dtype == jnp.uint8:  # pixels
        latents, _ = each_frame(partial(autoencoder, params['vae'], method='encode'), to_floats(latents))
        latents *= model.scale_factor
    latents = latents.astype(jnp.float32)
    if batch.wear is not None:
        seen = latents[:, : batch.wear.shape[1]] + batch.wear
        frames = each_frame(partial(autoencoder, params['vae'], method='decode'), seen / model.scale_factor)
        frames = jnp.clip(frames, -1, 1)
    if anchor is not None:
        anchor = build.image_tower(model, dtype)(params['image'], preprocess(anchor, model.image.image_size))
    return batch._replace(latents=latents, frames=frames, anchor=anchor)


def windows(key, length, frames, *, anchored):
    """Which frames of a sample of `length` frames are used: (first frame to denoise, anchor frame).

    The conditioning frames are the first ones of those to denoise. With an anchor, a sample is two chunks long: the
    anchor is a random frame of the first chunk (1-16 of 32), the second chunk (17-32) is denoised.
    """
    needed = 2 * frames if anchored else frames
    if length < needed:
        raise ValueError(f'samples of {length} frames are too short: this stage needs {needed}')
    start_key, anchor_key = jax.random.split(key)
    start = jax.random.randint(start_key, (), 0, length - needed + 1)
    if not anchored:
        return start, start
    return start + frames, start + jax.random.randint(anchor_key, (), 0, frames)


def draw(key, videos, model, *, anchored) -> Batch:
    """The batch of a key: of every row of the pool one video, one of its captions, and its windows."""
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


def masks(key, rows, length, memory):
    """Which frames of its chunk each example is given, [rows, length] booleans.

    As while sampling the first `memory` in half of the examples, in the others every frame with a probability that is
    drawn for the example: an ablation model learns from masks that vary.
    """
    kind_key, share_key, frame_key = jax.random.split(key, 3)
    share = jax.random.uniform(share_key, (rows, 1))
    any_of_them = jax.random.bernoulli(frame_key, share, (rows, length))
    return jnp.where(jax.random.bernoulli(kind_key, 0.5, (rows, 1)), jnp.arange(length) < memory, any_of_them)


def drop(key, batch: Batch, data: Data, dropout) -> Batch:
    """The batch with some conditions replaced by none; `dropout` has the shares text, anchor and both."""
    no_text, no_anchor = drop_conditions(key, len(batch.ids), **dropout)
    batch = batch._replace(ids=jnp.where(no_text[:, None], data.empty_ids, batch.ids))
    if batch.text is not None:
        batch = batch._replace(text=jnp.where(no_text[:, None, None], data.empty_text, batch.text))
    if batch.anchor is None:
        return batch
    no_anchor = no_anchor.reshape(-1, *[1] * (batch.anchor.ndim - 1))
    return batch._replace(anchor=jnp.where(no_anchor, data.empty_anchor, batch.anchor))


def make_data(config, model, params, tokenizer, mesh, key) -> Data:
    """The pool of `config.data.scenes` training scenes of `config.data.frames` frames, encoded."""
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
            seen = jax.vmap(partial(worn, config.conditioning_noise))(keys, latents)
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


def captioned_pool(make, params, tokenizer, config, mesh, key):
    """A pool of `config.data.scenes` training scenes: (what `make` makes of them, ids [rows, n, captions, 77]).

    make: (params, keys [b], scenes [b]) -> tree of arrays [b, ...], which become leaves [rows, n, ...].
    """
    data = config.data
    indices = world.split_indices('train', data.seed, 0, data.scenes)
    ids, _ = captions.token_table(tokenizer, data.seed, indices, data.captions)

    def columns(indices, params):
        rows, n = indices.shape
        scenes = indices.reshape(-1)
        keys = jax.vmap(partial(jax.random.fold_in, key))(scenes)
        made = make(params, keys, scenes)
        return jax.tree.map(partial(rearrange, pattern='(r n) ... -> r n ...', r=rows, n=n), made)

    made = pool.fill(columns, pool.rows(indices, config.batch_size, mesh), params, mesh, columns=data.columns,
                     compiler_options=config.compiler_options.to_dict())
    return made, pool.place(pool.rows(ids, config.batch_size, mesh), mesh)


def each_frame(function, videos):
    """What a function of images [n, ...] makes of every frame of videos [b, t, ...]: a tree of arrays [b, t, ...]."""
    made = function(rearrange(videos, 'b t ... -> (b t) ...'))
    return jax.tree.map(partial(rearrange, pattern='(b t) ... -> b t ...', b=len(videos)), made)


def video(data, size, key, scene):
    """`data.frames` successive frames [t, h, w, 3] of a scene, from a random time on; size is (h, w)."""
    start = jax.random.randint(key, (), 0, LAST_FRAME + 2 - data.frames)
    return world.render(world.scene(data.seed, scene), start + jnp.arange(data.frames), size)


def worn(noise, key, latents):
    """Latents [t,h,w,c] of a video with as much noise as U(0, noise) says, alike in all frames.

    While sampling, conditioning frames are the model's own; a CAM that has only seen flawless ones lets errors grow.
    """
    level_key, noise_key = jax.random.split(jax.random.fold_in(key, 1))
    level = jax.random.uniform(level_key, (), maxval=noise)
    return latents + level * jax.random.normal(noise_key, latents.shape)


def to_bytes(frames):
    """[-1, 1] float -> uint8."""
    return jnp.clip(jnp.round((frames + 1) * 127.5), 0, 255).astype(jnp.uint8)
