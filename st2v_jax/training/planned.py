"""A training step as shapes: what it receives and where that is placed. Nothing is loaded, drawn or allocated."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from st2v_jax import sharding
from st2v_jax.checkpoint import abstract
from st2v_jax.models import build
from st2v_jax.models.ablations import CONCATENATION
from st2v_jax.training import clips, denoising, pools, state, step
from st2v_jax.training.batch import Data
from st2v_jax.weights import layout


class PlannedStep(NamedTuple):
    """The step of a run, and its arguments as shapes with shardings.

    Attributes:
      run: as from `step.compiled_step`.
      state, frozen, data, progress, key: its arguments.
    """

    run: Any
    state: state.TrainState
    frozen: Any
    data: Data
    progress: jax.ShapeDtypeStruct
    key: jax.ShapeDtypeStruct

    def lower(self) -> jax.stages.Lowered:
        """The step, lowered for the devices of its shardings."""
        return self.run.lower(*self[1:])


def planned_step(config: ConfigDict, devices: Sequence[jax.Device]) -> PlannedStep:
    """The step of a stage that denoises, on a mesh of these devices.

    Raises ValueError for another stage, and if the batch or the mesh do not fit the devices.
    """
    if config.objective != 'denoising':
        raise ValueError(f'only stages with the objective denoising can be planned, not {config.objective!r}')
    mesh = sharding.make_mesh(config.mesh.to_dict(), devices)
    step.check_parts(config.batch_size, config.accumulation, mesh)
    model, trained, frozen = parameters(config)
    optimizer = step.make_optimizer(**config.optimizer)
    now = jax.eval_shape(partial(state.create, optimizer=optimizer), trained)
    everywhere, rows = sharding.replicated(mesh), sharding.split_rows(mesh)
    places, place_frozen = sharding.shardings(now, mesh), sharding.shardings(frozen, mesh)
    data = examples(config, model)
    place_data = jax.tree.map(lambda _: everywhere, data)._replace(videos=jax.tree.map(lambda _: rows, data.videos))
    draw, loss = denoising.functions(config, model)
    return PlannedStep(
        step.compiled_step(config, draw, loss, optimizer, mesh, places, place_frozen),
        abstract(now, places),
        abstract(frozen, place_frozen),
        abstract(data, place_data),
        abstract(jnp.float32(0), everywhere),
        abstract(jax.eval_shape(lambda: jax.random.key(0)), everywhere),
    )


def parameters(config: ConfigDict) -> tuple[build.ModelConfig, Any, Any]:
    """The ModelConfig, and the shapes of trained and of frozen parameters, as a step holds them."""
    model = build.ModelConfig.from_dict(config.model.to_dict())
    names = ('text', 'unet') + ('cam',) * config.memory + ('apm',) * config.anchor
    if config.data.source != denoising.WORLD:
        names += ('vae',) + ('image',) * config.anchor
    elif config.memory and model.cam.fusion == CONCATENATION:
        names += ('vae',)
    trained, frozen = state.split(layout.abstract(model, names), partial(denoising.is_trained, config))
    return model, trained, jax.eval_shape(partial(build.cast, dtype=jnp.dtype(config.dtype)), frozen)


def examples(config: ConfigDict, model: build.ModelConfig) -> Data:
    """Shapes of what a step draws from: the pool of `pools.make_data`, or a batch of clips that hold pixels only."""
    shape, size, ids = jax.ShapeDtypeStruct, model.frame_size, model.text.max_tokens
    if config.data.source != denoising.WORLD:
        pixels = lambda *sizes: shape((*sizes, *size, 3), jnp.uint8)
        videos = clips.Clips(
            pixels(config.batch_size, model.frames),
            shape((config.batch_size, ids), jnp.int32),
            pixels(config.batch_size) if config.anchor else None,
        )
        return Data(videos, shape((ids,), jnp.int32), shape((*size, 3), jnp.float32))
    rows, frames = (config.batch_size, config.data.scenes // config.batch_size), config.data.frames
    videos = pools.Videos(
        shape((*rows, frames, *model.latent_shape[1:]), jnp.float16),
        shape((*rows, config.data.captions, ids), jnp.int32),
        shape((*rows, frames, *size, 3), jnp.uint8) if config.memory else None,
        shape((*rows, frames, model.image.embed_dim), jnp.float16) if config.anchor else None,
    )
    empty_anchor = shape((model.image.embed_dim,), jnp.float32) if config.anchor else None
    return Data(videos, shape((ids,), jnp.int32), empty_anchor)


def bytes_per_device(tree: Any) -> int:
    """Bytes that each device holds of a tree of shapes with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def held(planned: PlannedStep) -> dict[str, int]:
    """Bytes on each device between two steps: {'parameters and average', 'optimizer', 'frozen', 'examples': bytes}."""
    now = planned.state
    parts = {
        'parameters and average': (now.params, now.ema),
        'optimizer': now.opt,
        'frozen': planned.frozen,
        'examples': planned.data,
    }
    return {name: bytes_per_device(tree) for name, tree in parts.items()}


def remedies(config: ConfigDict, devices: Sequence[jax.Device], wanted: int, memory: int) -> list[str]:
    """Options that bring a step that wants `wanted` bytes on each device to `memory`, calculated; [] if none do.

    The state is split over `fsdp`; everything else shrinks with the parts of a batch (`accumulation`).
    """
    before = sum(held(planned_step(config, devices)).values())
    meshes = {}  # fsdp: bytes of the state on each device
    for fsdp in range(config.mesh.fsdp, len(devices) // config.mesh.tensor + 1):
        split = config.copy_and_resolve_references()
        split.mesh.update(data=-1, fsdp=fsdp)
        if len(devices) % (fsdp * config.mesh.tensor) == 0:
            meshes[fsdp] = sum(held(planned_step(split, devices)).values())
    rows = config.batch_size * config.mesh.tensor // len(devices)  # of a device
    for parts in [n for n in range(config.accumulation, rows + 1) if rows % n == 0]:
        for fsdp, size in meshes.items():
            if size + (wanted - before) * config.accumulation / parts <= memory:
                chosen = {'mesh.fsdp': (fsdp, config.mesh.fsdp), 'accumulation': (parts, config.accumulation)}
                return [f'--config.{key}={value}' for key, (value, now) in chosen.items() if value != now]
    return ['--config.remat=nothing_saveable'] if config.remat == 'none' else []
