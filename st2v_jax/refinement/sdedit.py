"""The refinement stage: a long video through SDEdit, with the Refiner, in overlapping chunks.

Latents are diffused part of the way (T' of T steps) and denoised again. Step by step the whole video advances, span by
span of chunks: latents live on the host between steps, so device memory is bounded by the span and not by the video.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import repeat

from st2v_jax import sharding
from st2v_jax.diffusion import predict, sampling
from st2v_jax.diffusion.guidance import text_guidance
from st2v_jax.diffusion.log_snr import RefinerProcess, refiner_levels, sdedit_levels
from st2v_jax.diffusion.noise import frame_noise
from st2v_jax.diffusion.schedule import Level
from st2v_jax.diffusion.solvers import dpmpp_2m_sde_step
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.refiner import RefinerConfig
from st2v_jax.refinement import blend


@dataclass(frozen=True)
class RefineSettings:
    """How a video is refined; hashable, since it is part of what is compiled. The defaults are the released ones.

    Attributes:
      variant: 'paper' or 'release' (how overlaps are blended), or a baseline, 'B' or 'B+S'.
      steps, start: denoising steps, and the entry of the table where SDEdit begins (T' - 1).
      length, overlap: frames of a chunk, and how many of them neighbours share.
      guidance, rescale: guidance scale and the share by which guided predictions get the conditional one's spread.
      scaled_start: whether the noised latents are multiplied by their sigma, as released, where it is nearly 1.
      group: chunks computed together, a multiple of the devices they are spread over.
      span: chunks that are on the device at a time, a multiple of group; changes nothing but memory.
    """

    variant: str = 'paper'
    steps: int = RefinerConfig.steps
    start: int = RefinerConfig.start
    length: int = RefinerConfig.length
    overlap: int = RefinerConfig.overlap
    guidance: float = RefinerConfig.guidance
    rescale: float = RefinerConfig.rescale
    scaled_start: bool = RefinerConfig.scaled_start
    group: int = 1
    span: int = 8

    def __post_init__(self):
        if self.variant not in blend.VARIANTS:
            raise ValueError(f'variant is one of {blend.VARIANTS}, not {self.variant!r}')
        if self.group < 1 or self.span < 1 or self.span % self.group:
            raise ValueError(f'span is a multiple of group, not {self.span} of {self.group}')

    def plan(self, frames) -> blend.Plan:
        """How a video of this many frames is cut."""
        return blend.Plan(frames, self.length, self.overlap)


def settings_for(config: ModelConfig, **overrides) -> RefineSettings:
    """The settings a model's Refiner is sampled with: its own, the blending of its profile, then the overrides."""
    known, stored = ({field.name for field in dataclasses.fields(cls)} for cls in (RefineSettings, config.refiner))
    if unknown := overrides.keys() - known:
        raise ValueError(f'unknown settings {sorted(unknown)}; there are {sorted(known)}')
    own = {name: getattr(config.refiner, name) for name in known & stored}
    settings = RefineSettings(**{'variant': config.profile, **own, **overrides})
    settings.plan(1)
    sdedit_levels(refiner_levels(config.refiner.process), settings.steps, settings.start)
    return settings


@dataclass(frozen=True, eq=False)
class Refiner:
    """The Refiner as a pure function unet(params, x [b,f,h,w,c], t [b], condition) -> v, and its forward process.

    A Network of `UNet3D` is one; its condition is keys and values of the texts [unconditional, conditional], made once
    for a video. Make a Refiner once as well: what is compiled belongs to it.
    """

    unet: Callable
    process: RefinerProcess = RefinerProcess()

    @functools.cached_property
    def table(self) -> Level:
        """All levels of the process."""
        return refiner_levels(self.process)

    def denoiser(self, settings, params, condition):
        """denoise(x, level) -> x0, guided, for any number of chunks of each video.

        The network and the reading of v are told whole steps, as released.
        """
        def network(x, t):
            spread = lambda leaf: repeat(leaf, '(n b) ... -> (n g b) ...', n=2, g=len(x) // len(leaf))
            return self.unet(params, x, t, jax.tree.map(spread, condition))

        guided = text_guidance(settings.guidance, settings.rescale)(network)
        return predict.at_entries(predict.denoiser(guided, 'v'), self.table)


class Progress(NamedTuple):
    """Where a refinement stands between two steps: arrays on the host, which may be files.

    Attributes:
      x, x0: the long latent and its last clean prediction, [b,F,h,w,c]; of a baseline [b,n,m,h,w,c], chunk by chunk.
      step: steps done.
    """

    x: np.ndarray
    x0: np.ndarray
    step: int


def begin(refiner: Refiner, settings: RefineSettings, keys: blend.Keys, latents, *, folder=None) -> Progress:
    """SDEdit's start (Meng et al. 2021, arXiv:2108.01073): latents [b,F,h,w,c], any array, noised to entry `start`.

    folder: where to keep what does not fit into memory, as .npy files.
    """
    plan, shape = settings.plan(latents.shape[1]), latents.shape[2:]
    level = Level(*(leaf[settings.start] for leaf in refiner.table))
    factor = level.sigma if settings.scaled_start else 1
    noised = lambda latents, noise: factor * predict.add_noise(jnp.asarray(latents), noise, level)
    if settings.variant in blend.BASELINES:
        x = np.asarray(noised(latents[:, plan.indices], blend.noise(settings.variant, keys.noise, 0, plan, shape)))
        return Progress(x, np.zeros_like(x), 0)
    x, x0 = (_allocate(folder, name, latents.shape) for name in ('x', 'x0'))
    for piece in _pieces(plan, settings.span):
        noise = frame_noise(keys.noise, 0, np.arange(piece.start, piece.stop), shape)
        x[:, piece], x0[:, piece] = noised(latents[:, piece], noise), 0
    return Progress(x, x0, 0)


def refine(refiner: Refiner, settings: RefineSettings, params, condition, keys: blend.Keys, progress: Progress, frames,
           *, mesh=None, folder=None, on_step=None) -> np.ndarray:
    """The refined latents [b,F,h,w,c] of a video of F = `frames`, from wherever `progress` stands.

    mesh: the chunks of a group are spread over its data axis. folder: as for `begin`. on_step(progress, steps) is told
    after every step; from a copy of that progress a refinement continues as if it had not stopped. The arrays of
    `progress` itself are used up.
    """
    plan = settings.plan(frames)
    levels = sdedit_levels(refiner.table, settings.steps, settings.start)
    numbers, now, nxt = sampling.steps(levels)
    whole = _stays_whole(settings, plan)
    advance = functools.partial(_whole if whole else _span_by_span, refiner, settings, plan, mesh)
    spare = None if whole else _allocate(folder, 'next', progress.x.shape)
    while progress.step < settings.steps:
        i = progress.step
        last, at, to = (jax.tree.map(lambda leaf, n=n: leaf[n], part)
                        for part, n in ((now, max(i - 1, 0)), (now, i), (nxt, i)))
        x, x0 = advance(params, condition, keys, Progress(progress.x, progress.x0, last), (numbers[i], at, to), spare)
        spare, progress = progress.x, Progress(x, x0, i + 1)
        if on_step is not None:
            on_step(progress, settings.steps)
    return blend.join(progress.x, plan) if settings.variant in blend.BASELINES else progress.x


def program(refiner: Refiner, settings: RefineSettings, params, condition, keys: blend.Keys, shape, *, mesh=None):
    """What one step of `refine` runs for latents of `shape` [b,F,h,w,c]: (program, its arguments, how many times).

    params, condition, keys: as for `refine`; they and what is given back may be shapes only.
    """
    batch, frames, *pixels = shape
    plan = settings.plan(frames)
    latents = lambda *frames: jax.ShapeDtypeStruct((batch, *frames, *pixels), jnp.float32)
    numbers = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
    steps = sampling.steps(sdedit_levels(refiner.table, settings.steps, settings.start))
    inputs = jax.tree.map(lambda leaf: leaf[0], steps)
    _, last, _ = inputs
    if _stays_whole(settings, plan):
        x = latents(*plan.indices.shape) if settings.variant in blend.BASELINES else latents(frames)
        trajectory = sampling.Trajectory(x, x, last)
        return (functools.partial(_whole_step, refiner, settings, plan, mesh),
                (params, condition, keys, trajectory, inputs), 1)
    span, own = settings.span, settings.span * plan.stride + plan.overlap
    arguments = (params, condition, keys.noise, inputs, last, latents(span * plan.length), latents(own), latents(own),
                 numbers(own), numbers(batch, span), numbers(span), latents(plan.overlap))
    return functools.partial(_span_step, refiner, settings, mesh), arguments, math.ceil(plan.count / span)


def _stays_whole(settings, plan):
    """What fits on the device at once stays whole; baselines, which are there to be compared with, always do."""
    return plan.count <= settings.span or settings.variant in blend.BASELINES


def _whole(refiner, settings, plan, mesh, params, condition, keys, progress, inputs, _):
    return jax.tree.map(np.array, _whole_step(refiner, settings, plan, mesh, params, condition, keys,
                                              sampling.Trajectory(*progress), inputs)[:2])


@functools.partial(jax.jit, static_argnums=range(4))
def _whole_step(refiner, settings, plan, mesh, params, condition, keys, trajectory, inputs):
    denoise = refiner.denoiser(settings, params, condition)
    step = blend.denoising_step(denoise, plan, settings.variant, keys, group=settings.group, mesh=mesh)
    return step(trajectory, inputs)


def _span_by_span(refiner, settings, plan, mesh, params, condition, keys, progress, inputs, out):
    """One step of a long video: the new x goes to `out`, since the next span still reads the old one; x0 in place."""
    x, x0, last = progress
    indices, shift = plan.rows(settings.span)
    tail = np.zeros_like(x[:, :plan.overlap])
    for first in range(0, len(indices), settings.span):
        chunks = slice(first, first + settings.span)
        # the frames that this span decides, and its tail, which the next one may decide otherwise
        begins, ends = first * plan.stride, (first + settings.span) * plan.stride
        own = np.arange(begins, ends + plan.overlap)
        at = np.minimum(own, plan.frames - 1)
        left = _left(settings.variant, keys.cuts, inputs[0], plan, np.arange(first, first + settings.span))
        new, predicted, tail = map(np.asarray, _span_step(
            refiner, settings, mesh, params, condition, keys.noise, inputs, last, x[:, indices[chunks].ravel()],
            x[:, at], x0[:, at], own, left, shift[chunks], tail))
        if first + settings.span >= len(indices):
            ends = plan.frames
        count = min(ends, plan.frames) - begins
        out[:, begins : begins + count], x0[:, begins : begins + count] = new[:, :count], predicted[:, :count]
    return out, x0


_left = jax.jit(blend.frames_from_left, static_argnums=(0, 3))


@functools.partial(jax.jit, static_argnums=range(3))
def _span_step(refiner, settings, mesh, params, condition, key, inputs, last, chunks, x, x0_last, frames, left, shift,
               tail):
    """x and x0 of the span's own frames and of its tail, and the tail as the next span needs it.

    Nothing here knows how long the video is, so that it is compiled once.
    """
    step, now, nxt = inputs
    denoise, plan = refiner.denoiser(settings, params, condition), settings.plan(settings.length)
    places = np.arange(chunks.shape[1]).reshape(len(shift), -1)
    decided, tail = blend.predict_groups(denoise, plan, now, chunks, places, shift, left, tail, group=settings.group,
                                         mesh=mesh)
    x0 = jnp.concatenate([decided, tail], 1)
    if mesh is not None:  # as in `blend.predict`
        x0 = jax.lax.with_sharding_constraint(x0, sharding.replicated(mesh))
    noise = frame_noise(key, step + 1, frames, x.shape[2:])
    return dpmpp_2m_sde_step(x, x0, x0_last, last, now, nxt, noise), x0, tail


def _pieces(plan, span):
    """Slices of the video's frames, as many at a time as a span of chunks adds."""
    size = span * plan.stride
    return [slice(begins, min(begins + size, plan.frames)) for begins in range(0, plan.frames, size)]


def _allocate(folder, name, shape):
    """An array of this shape, in memory or as the file folder/name.npy."""
    if folder is None:
        return np.empty(shape, np.float32)
    return np.lib.format.open_memmap(Path(folder) / f'{name}.npy', 'w+', np.float32, tuple(shape))
