"""The refinement stage: SDEdit of a long video with the Refiner, in overlapping chunks.

Latents are diffused part of the way (T' of T steps) and denoised again. Each step goes through the whole video, span
by span of chunks. Between steps the latents are on the host, so the span bounds the device memory, not the video, and a
run that was killed goes on with the span that it was at.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax import stopping
from st2v_jax.diffusion import predict
from st2v_jax.diffusion.guidance import text_guidance
from st2v_jax.diffusion.log_snr import RefinerProcess, refiner_levels, sdedit_levels
from st2v_jax.diffusion.noise import frame_noise
from st2v_jax.diffusion.sampling import Trajectory
from st2v_jax.diffusion.schedule import Level
from st2v_jax.models.attention import KeysValues
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.refiner import RefinerConfig
from st2v_jax.refinement import blend
from st2v_jax.refinement.levels import Levels


@dataclass(frozen=True)
class RefineSettings:
    """How a video is refined; hashable, because compiled programs depend on it. The defaults are the released ones.

    Attributes:
      variant: 'paper' or 'release' (how overlaps are blended), or a baseline, 'B' or 'B+S'.
      steps, start: denoising steps, and the entry of the table where SDEdit begins (T' - 1).
      length, overlap: frames of a chunk, and how many of them neighbours share.
      guidance, rescale: guidance scale, and the share by which guided predictions get the conditional one's spread.
      scaled_start: whether the noised latents are multiplied by their sigma (nearly 1), as released.
      group: chunks computed together, a multiple of the devices they are spread over.
      span: chunks that are on the device at a time, a multiple of group; bounds memory, changes nothing else.
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
        blend.check_variant(self.variant)
        if self.group < 1 or self.span < 1 or self.span % self.group:
            raise ValueError(f'span is a multiple of group, not {self.span} of {self.group}')

    def plan(self, frames: int) -> blend.Plan:
        """How a video of this many frames is cut."""
        return blend.Plan(frames, self.length, self.overlap)


def settings_for(config: ModelConfig, **overrides: Any) -> RefineSettings:
    """The settings that a model's Refiner is sampled with: its own, the blending of its profile, then the overrides.

    Raises ValueError for an unknown name or value.
    """
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
    """The Refiner as a pure function unet(params, x [b, f, h, w, c], t [b], condition) -> v, and its forward process.

    The function may be a Network of `UNet3D`, whose condition is keys and values of the texts [unconditional,
    conditional]. Make a Refiner only once, because what is compiled belongs to it.
    """

    unet: Callable
    process: RefinerProcess = RefinerProcess()

    @functools.cached_property
    def table(self) -> Level:
        """All levels of the process."""
        return refiner_levels(self.process)


class Step(NamedTuple):
    """A denoising step of the whole video: its number, the level of the last step, its own level and the next one."""

    number: jax.Array
    last: Level
    now: Level
    next: Level


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('params', 'condition', 'keys'),
    meta_fields=('refiner', 'settings', 'mesh'),
)
@dataclass(frozen=True, eq=False)
class Job:
    """What stays the same for a whole refinement; as a pytree, its arrays are leaves and the rest is static.

    It does not depend on the length of the video, so the program of a span is compiled once for videos of any length.

    Attributes:
      refiner, settings: how the video is refined.
      params: those of the Refiner's network.
      condition: keys and values [(t b), ...] of the texts of b videos, computed once: the unconditional one, then those
        that chunks may have.
      keys: [b] those of the noise and of the cuts.
      mesh: the chunks of a group are spread over its data axis; None is one device.
    """

    refiner: Refiner
    settings: RefineSettings
    params: dict[str, Any]
    condition: list[KeysValues]
    keys: blend.Keys
    mesh: jax.sharding.Mesh | None = None

    def step(self, number: int) -> Step:
        """The step of this number, from 0."""
        levels = sdedit_levels(self.refiner.table, self.settings.steps, self.settings.start)
        at = lambda entry: Level(*(jnp.asarray(leaf[entry]) for leaf in levels))
        return Step(jnp.int32(number), at(max(number - 1, 0)), at(number), at(number + 1))

    def denoise(self, x: jax.Array, level: Level, texts: jax.Array | None) -> jax.Array:
        """The guided clean prediction, like x, of any number of chunks of each video, x [n, m, h, w, c].

        texts [n] says which text each has; 0 is the first after the unconditional one, and None is 0 for all. As
        released, the network's t and the level at which v is read are whole steps.
        """
        videos = len(self.keys.noise)
        video = jnp.arange(len(x)) % videos
        rows = jnp.concatenate([video, (1 if texts is None else 1 + texts) * videos + video])

        def network(x, t):
            return self.refiner.unet(
                self.params, x, t, jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), self.condition)
            )

        guided = text_guidance(self.settings.guidance, self.settings.rescale)(network)
        return predict.at_entries(predict.denoiser(guided, 'v'), self.refiner.table)(x, level)


class Span(NamedTuple):
    """What a span of n neighbouring chunks reads in a step.

    Attributes:
      chunks: [b, n*m, h, w, c], the noisy latents of its chunks, one after the other.
      x, x0: [b, f, h, w, c], noisy latents and last predictions of its own frames: those that it decides, and its tail,
        which the next span may decide differently; f = n (m - O) + O.
      frames: [f], their absolute numbers, which may exceed the end of the video.
      left, shift: [b, n] and [n], the cuts of the chunks, and by how many frames each was shifted back.
      tail: [b, O, h, w, c], this step's prediction of the frames to its left.
      texts: [n], the number of each chunk's text; None where all have the first.
    """

    chunks: jax.Array
    x: jax.Array
    x0: jax.Array
    frames: jax.Array
    left: jax.Array
    shift: jax.Array
    tail: jax.Array
    texts: jax.Array | None


def begin(job: Job, latents: np.ndarray, *, folder: str | Path | None = None) -> Levels:
    """SDEdit's start (Meng et al. 2021, arXiv:2108.01073): latents noised to entry `start`.

    Args:
      job: how to refine.
      latents: [b, F, h, w, c], any array, such as a memory-mapped file.
      folder: where to keep arrays as files; None keeps them in memory.
    """
    settings, key, shape = job.settings, job.keys.noise, latents.shape[2:]
    plan, levels = settings.plan(latents.shape[1]), Levels(*level_shapes(job.settings, latents.shape), folder)
    level = Level(*(leaf[settings.start] for leaf in job.refiner.table))
    factor = level.sigma if settings.scaled_start else 1
    noised = lambda latents, noise: factor * predict.add_noise(jnp.asarray(latents), noise, level)
    if settings.variant in blend.BASELINES:
        x = noised(latents[:, plan.indices], blend.noise(settings.variant, key, 0, plan, shape))
        levels.write(slice(None), x, 0)
    else:
        for piece in _pieces(plan, settings.span):
            noise = frame_noise(key, 0, np.arange(piece.start, piece.stop), shape)
            levels.write(piece, noised(latents[:, piece], noise), 0)
    levels.finish()
    return levels


def refine(
    job: Job,
    levels: Levels,
    frames: int,
    *,
    texts: np.ndarray | None = None,
    on_step: Callable[[Levels, int], None] | None = None,
) -> np.ndarray:
    """The refined latents [b, F, h, w, c] of a video of F = `frames` frames.

    Args:
      job: how to refine.
      levels: where to go on, as from `begin`, or as found in a folder with `level_shapes`. It is overwritten.
      frames: of the video.
      texts: [n] int32, which of the job's texts each chunk has, from 0; None is the first for all.
      on_step: called as on_step(levels, steps) after every step.
    """
    settings, plan = job.settings, job.settings.plan(frames)
    while levels.done < settings.steps:
        stopping.check()
        step = job.step(levels.done)
        if _stays_whole(settings, plan) and not levels.chunk:
            levels.write(slice(None), *map(np.asarray, whole_step(plan, job, step, levels.x, levels.x0, texts)))
        else:
            _step_by_spans(plan, job, step, levels, texts)
        levels.finish()
        if on_step is not None:
            on_step(levels, settings.steps)
    levels.keep_result()
    return blend.join(levels.x, plan) if settings.variant in blend.BASELINES else levels.x


def level_shapes(settings: RefineSettings, latents: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of all and of the tail of the Levels of latents [b, F, h, w, c]."""
    videos, frames, *frame = latents
    plan = settings.plan(frames)
    all_frames = plan.indices.shape if settings.variant in blend.BASELINES else (frames,)
    return (videos, *all_frames, *frame), (videos, plan.overlap, *frame)


def step_program(job: Job, shape: tuple[int, ...]) -> tuple[Callable, tuple, int]:
    """What a step of `refine` runs for latents of `shape` [b, F, h, w, c]: (program, its arguments, how many times).

    The arrays of the job may be shapes; the latents among the arguments are shapes.
    """
    settings, plan, step = job.settings, job.settings.plan(shape[1]), job.step(0)
    latents = jax.ShapeDtypeStruct(shape, jnp.float32)
    if _stays_whole(settings, plan):
        if settings.variant in blend.BASELINES:
            latents = jax.eval_shape(lambda latents: latents[:, plan.indices], latents)
        return functools.partial(whole_step, plan), (job, step, latents, latents, None), 1
    first = lambda job, x: _span(plan, job, step, x, x, 0, x[:, : plan.overlap], None)
    return span_step, (job, step, jax.eval_shape(first, job, latents)), math.ceil(plan.count / settings.span)


def _stays_whole(settings, plan):
    """Whether a step takes all chunks at once: true for a video of one span, and always for the baselines."""
    return plan.count <= settings.span or settings.variant in blend.BASELINES


@functools.partial(jax.jit, static_argnums=0)
def whole_step(
    plan: blend.Plan, job: Job, step: Step, x: jax.Array, x0: jax.Array, texts: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """x and x0 of `Levels` after one step, with all chunks on the device; texts [n] as for `refine`."""
    settings = job.settings
    advance = blend.denoising_step(
        job.denoise, plan, settings.variant, job.keys, texts=texts, group=settings.group, mesh=job.mesh
    )
    x, x0, _ = advance(Trajectory(x, x0, step.last), (step.number, step.now, step.next))
    return x, x0


@jax.jit
def span_step(job: Job, step: Step, span: Span) -> tuple[jax.Array, jax.Array]:
    """x and x0 of a span's own frames after one step.

    Nothing here depends on the length of the video, so this is compiled once.
    """
    settings = job.settings
    plan = settings.plan(settings.length)
    places = np.arange(span.chunks.shape[1]).reshape(len(span.shift), -1)

    def predicted(x, level, number):
        return blend.predict_groups(
            job.denoise,
            plan,
            level,
            span.chunks,
            places,
            span.shift,
            span.left,
            span.tail,
            texts=span.texts,
            group=settings.group,
            mesh=job.mesh,
        )

    noise = lambda number: frame_noise(job.keys.noise, number + 1, span.frames, span.x.shape[2:])
    advance = blend.stepper(predicted, noise)
    x, x0, _ = advance(Trajectory(span.x, span.x0, step.last), (step.number, step.now, step.next))
    return x, x0


def _step_by_spans(plan, job, step, levels, texts):
    """One step of a long video, or what is left of it."""
    tail = levels.tail
    for first in range(levels.chunk, plan.count, job.settings.span):
        stopping.check()
        span = _span(plan, job, step, levels.x, levels.x0, first, tail, texts)
        new, predicted = map(np.asarray, span_step(job, step, span))
        tail = predicted[:, -plan.overlap :]
        begins, after = first * plan.stride, first + job.settings.span
        ends = after * plan.stride if after < plan.count else plan.frames
        levels.write(slice(begins, ends), new[:, : ends - begins], predicted[:, : ends - begins])
        if after < plan.count:
            levels.pass_on(after, ends, tail)


def _span(plan, job, step, x, x0, first, tail, texts) -> Span:
    """The Span of the chunks from number `first`, of latents and predictions of the whole video [b, F, h, w, c]."""
    numbers = np.arange(first, first + job.settings.span)
    indices, shift = plan.rows(numbers)
    frames = np.arange(first * plan.stride, (first + len(numbers)) * plan.stride + plan.overlap)
    at = np.minimum(frames, plan.frames - 1)
    left = _frames_from_left(job.settings.variant, job.keys.cuts, step.number, plan, numbers)
    told = None if texts is None else texts[np.minimum(numbers, plan.count - 1)]
    return Span(x[:, indices.ravel()], x[:, at], x0[:, at], frames, left, shift, tail, told)


_frames_from_left = jax.jit(blend.frames_from_left, static_argnums=(0, 3))


def _pieces(plan, span):
    """Slices of the video's frames, each as long as a span of chunks adds."""
    size = span * plan.stride
    return [slice(begins, min(begins + size, plan.frames)) for begins in range(0, plan.frames, size)]
