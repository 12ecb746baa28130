"""The denoising objective of the stages video_ldm, cam and apm, and of the ablations.

A step reads from a pool of the small world (pools.py) or from real clips (clips.py). The text tower runs in the step,
so that it can be trained too, unless the clips hold its embeddings.
"""

import re
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh
from ml_collections import ConfigDict

from st2v_jax.diffusion.loss import diffusion_loss, drop_conditions
from st2v_jax.diffusion.schedule import noise_levels
from st2v_jax.models import build
from st2v_jax.models.ablations import ATTENTION, CONCATENATION
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.system import remembered
from st2v_jax.models.system import system as make_system
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training import clips, pools, state
from st2v_jax.training.batch import Batch, Data
from st2v_jax.training.objective import Objective, Params, require

WORLD = 'world'  # the config.data.source that stands for a pool of the small world


def objective(
    config: ConfigDict, model: ModelConfig, params: Params, tokenizer: Tokenizer, mesh: Mesh, key: jax.Array
) -> Objective:
    """Trains the parameters whose paths match `config.trained` and do not match `config.frozen`.

    A UNet, CAM or APM that is not in `params` is initialised here; CAM starts as a copy of the UNet's encoder.
    """
    if config.anchor and model.apm is None:
        raise ValueError(f'stage {config.stage} has an anchor, but its model has no APM')
    if config.plain and config.batch_size // config.accumulation % config.plain:
        raise ValueError(
            f'with plain={config.plain}, the examples of a batch are a multiple of {config.plain}, '
            f'not {config.batch_size // config.accumulation} (batch_size / accumulation)'
        )
    require(params, ('vae', 'text') + ('unet',) * config.memory + ('image',) * config.anchor, config.stage)
    fresh = build.init(key, build.denoiser(model))
    started = {'text': params['text'], 'unet': params.get('unet') or fresh['unet']}
    if config.memory:
        started['cam'] = params.get('cam') or build.copy_encoder({**started, 'cam': fresh['cam']})['cam']
    if config.anchor:
        started['apm'] = params.get('apm') or fresh['apm']
    encodes_memory = config.memory and model.cam.fusion == CONCATENATION
    if encodes_memory:
        started['vae'] = params['vae']
    if model.initial:  # the first chunk is still made by the UNet that this stage starts from
        params = {**params, 'initial': params.get('initial') or started['unet']}
    trained = partial(is_trained, config)
    data = steps = None
    if config.data.source == WORLD:
        data = pools.make_data(config, model, params, tokenizer, mesh, jax.random.fold_in(key, 1))
    else:
        started |= {name: params[name] for name in ('vae',) + ('image',) * config.anchor}
        fixed = {'vae', 'text'} - set(
            state.split(started, trained)[0]
        )  # networks that are trained must run, whatever the clips hold
        steps, spared = clips.feed(config, model, started, tokenizer, mesh, fixed)
        idle = spared - {'vae'} if clips.decodes(config) or encodes_memory else spared
        started = {name: network for name, network in started.items() if name not in idle}
    draw, loss = functions(config, model)
    finish = lambda trained, model: ({**params, **trained}, model)
    return Objective(started, trained, data, draw, loss, partial(loss, remat='none'), finish, steps)


def is_trained(config: ConfigDict, path: str) -> bool:
    """Whether the parameter with this path is trained: `config.trained` matches it and `config.frozen` does not."""
    return bool(re.fullmatch(config.trained, path)) and not re.fullmatch(config.frozen, path)


def functions(config: ConfigDict, model: ModelConfig) -> tuple[Callable, Callable]:
    """The `draw` and the `loss` of the Objective."""
    dtype, table = jnp.dtype(config.dtype), noise_levels(model.diffusion)
    system = make_system(model, dtype)
    network, tower = system.denoiser, system.text

    def examples(data, key):
        batch_key, mask_key, drop_key, noise_key, t_key = jax.random.split(key, 5)
        if isinstance(data.videos, clips.Clips):
            batch = clips.draw(batch_key, data.videos, config, model)
        else:
            batch = pools.draw(batch_key, data.videos, model, anchored=config.anchor)
        if config.memory and model.cam.fusion != ATTENTION:
            batch = batch._replace(mask=masks(mask_key, len(batch.ids), model.frames, model.memory))
        batch = drop(drop_key, batch, data, config.dropout)
        t = jax.random.randint(t_key, (len(batch.ids),), 0, model.diffusion.steps)
        return batch, jax.random.normal(noise_key, (len(t), *model.latent_shape)), t

    def loss(params, examples, remat=config.remat):
        batch, noise, t = examples
        if isinstance(batch, clips.RawBatch):
            batch = clips.encode(batch, params, model, dtype)
        if batch.text is None:
            batch = batch._replace(text=tower(params['text'], batch.ids))
        if not config.plain:
            return denoised(params, batch, noise, t, remat), {}
        # Every k-th row: a batch that is split over devices then has some of these on each of them.
        cut = partial(rearrange, pattern='(n k) ... -> k n ...', k=config.plain)
        first, rest = _first_and_rest(jax.tree.map(cut, (batch._replace(ids=None), noise, t)))
        plain = denoised(params, first[0]._replace(frames=None, anchor=None, mask=None), *first[1:], remat)
        return (plain + (config.plain - 1) * denoised(params, *rest, remat)) / config.plain, {}

    def denoised(params, batch, noise, t, remat):
        memory = None
        if batch.frames is not None:
            memory = remembered(system, params, batch.frames, batch.mask)
        params = {name: params[name] for name in ('unet', 'cam', 'apm') if name in params}
        anchor = batch.anchor
        if anchor is not None:
            anchor = network(params, anchor, method='anchor_tokens')
        condition = network(params, batch.text.astype(dtype), memory, anchor, method='condition')
        predict = partial(network, params, condition=condition, remat=remat)
        return diffusion_loss(predict, batch.latents, noise, t, table, model.diffusion.prediction)

    return examples, loss


def _first_and_rest(tree):
    """Leaves [k, n, ...] -> a tree of [n, ...] and one of [(k - 1) * n, ...]."""
    join = partial(rearrange, pattern='k n ... -> (k n) ...')
    return jax.tree.map(lambda leaf: leaf[0], tree), jax.tree.map(lambda leaf: join(leaf[1:]), tree)


def masks(key: jax.Array, rows: int, length: int, memory: int) -> jax.Array:
    """Which frames of its chunk each example is given, bool [rows, length]: masks that vary, for the ablation models.

    Half of the examples are given the first `memory` frames, as in sampling. The others are given each frame with a
    probability that is drawn for the example.
    """
    kind_key, share_key, frame_key = jax.random.split(key, 3)
    share = jax.random.uniform(share_key, (rows, 1))
    any_of_them = jax.random.bernoulli(frame_key, share, (rows, length))
    return jnp.where(jax.random.bernoulli(kind_key, 0.5, (rows, 1)), jnp.arange(length) < memory, any_of_them)


def drop(key: jax.Array, batch: Batch | clips.RawBatch, data: Data, dropout: ConfigDict) -> Batch | clips.RawBatch:
    """Replaces some conditions of a batch by the empty ones; `dropout` has the shares 'text', 'anchor' and 'both'."""
    no_text, no_anchor = drop_conditions(key, len(batch.ids), **dropout)
    batch = batch._replace(ids=jnp.where(no_text[:, None], data.empty_ids, batch.ids))
    if batch.text is not None:
        batch = batch._replace(text=jnp.where(no_text[:, None, None], data.empty_text, batch.text))
    if batch.anchor is None:
        return batch
    no_anchor = no_anchor.reshape(-1, *[1] * (batch.anchor.ndim - 1))
    return batch._replace(anchor=jnp.where(no_anchor, data.empty_anchor, batch.anchor))
