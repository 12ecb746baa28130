"""Refinement of a long video in overlapping chunks: shared noise (eq. 7) and randomized blending (eq. 8).

There is one long latent, and chunks are views of it. So neighbours have the same frames and the same noise on their
overlap, and blending only decides which of the two predicts a frame. A solver's step is elementwise, so blending the
clean predictions before it equals blending the latents after it. The paper and its release differ in where the cut may
fall.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import Mesh

from st2v_jax import sharding
from st2v_jax.diffusion.noise import frame_noise
from st2v_jax.diffusion.sampling import advance
from st2v_jax.diffusion.schedule import Level

BLENDING = ('paper', 'release')
BASELINES = ('B', 'B+S')  # separate chunks; separate chunks with shared noise
VARIANTS = BASELINES + BLENDING


def check_variant(variant: str) -> None:
    """Raises ValueError for a variant that is not one of VARIANTS."""
    if variant not in VARIANTS:
        raise ValueError(f'variant is one of {VARIANTS}, not {variant!r}')


@dataclass(frozen=True)
class Plan:
    """How a video of `frames` frames is cut into chunks of `length` (m) frames; neighbours share `overlap` (O) of them.

    The last chunk is shifted back until it ends with the video. A video shorter than a chunk is one chunk.
    """

    frames: int
    length: int = 24
    overlap: int = 8

    def __post_init__(self):
        if self.frames < 1:
            raise ValueError(f'a video has at least 1 frame, not {self.frames}')
        if not 1 <= self.overlap <= self.length // 2:
            raise ValueError(f'chunks of {self.length} frames overlap by 1 to {self.length // 2}, not {self.overlap}')

    @property
    def stride(self) -> int:
        """Frames that each chunk adds."""
        return self.length - self.overlap

    @property
    def count(self) -> int:
        """Number of chunks."""
        return 1 + max(0, math.ceil((self.frames - self.length) / self.stride))

    @property
    def indices(self) -> np.ndarray:
        """Absolute frames of the chunks, [count, length], or [1, frames] for a short video."""
        return self.rows(np.arange(self.count))[0]

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Absolute frames [n, m] of the chunks with these numbers, and by how many frames each is shifted back, [n].

        A number beyond the plan repeats the last chunk, to fill up a group. The prediction of a repeated chunk is never
        used, because its cut leaves all frames to its left neighbour.
        """
        length = min(self.length, self.frames)
        unshifted = numbers * self.stride
        starts = np.minimum(unshifted, self.frames - length)
        return starts[:, None] + np.arange(length), np.where(numbers < self.count, unshifted - starts, 0)


def noise(variant: str, key: jax.Array, noise_index: int, plan: Plan, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise of a whole video.

    For blending it is that of the long latent, [b, F, *shape], so chunk i repeats the noise of chunk i - 1 on their
    overlap (eq. 7). For 'B+S' it is the same noise chunk by chunk, [b, n, m, *shape]; for 'B' each chunk has its own.

    Args:
      variant: one of VARIANTS.
      key: [b], one for each video.
      noise_index: 0 is the initial noise, i + 1 the noise of step i.
      plan: how the video is cut.
      shape: of one frame.
    """
    if variant == 'B':
        of_chunk = lambda number, frames: frame_noise(
            jax.vmap(jax.random.fold_in, (0, None))(key, number), noise_index, frames, shape
        )
        return jax.vmap(of_chunk, out_axes=1)(jnp.arange(plan.count), plan.indices)
    shared = frame_noise(key, noise_index, jnp.arange(plan.frames), shape)
    return shared[:, plan.indices] if variant == 'B+S' else shared


def frames_from_left(
    variant: str, key: jax.Array, step: int, plan: Plan, numbers: np.ndarray | None = None
) -> jax.Array:
    """How many frames of its first overlap each chunk leaves to its left neighbour, [b, n] int32; 0 for the first.

    This is a pure function of (key, step, number of the chunk). Paper: O - f_thr with f_thr uniform in {0..O}, so frame
    f = 1..O of an overlap comes from the left with probability 1 - f / (O + 1). Release: uniform in {0..O-1}, so with
    probability 1 - f / O.

    Args:
      variant: 'paper' or 'release'.
      key: [b], one for each video.
      step: number of the denoising step.
      plan: how the video is cut.
      numbers: [n] of the chunks; None means all. A number beyond the plan leaves all O frames.
    """
    most = {'paper': plan.overlap, 'release': plan.overlap - 1}[variant]

    def one(key, number):
        key = jax.random.fold_in(jax.random.fold_in(key, step), number)
        cut = jnp.where(number > 0, jax.random.randint(key, (), 0, most + 1), 0)
        return jnp.where(number < plan.count, cut, plan.overlap)

    numbers = jnp.arange(plan.count) if numbers is None else numbers
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(key, numbers)


def denoise_group(
    denoise: Callable, level: Level, chunks: jax.Array, texts: jax.Array | None = None, mesh: Mesh | None = None
) -> jax.Array:
    """Clean predictions of chunks [g, b, m, h, w, c]: one batch of g * b, or of its share on each device of the mesh.

    denoise: (x [n, m, h, w, c], level, texts [n]) -> x0; n counts chunks, and videos within each chunk. `texts` [g] are
    the numbers of the chunks' texts, for `denoise` to read; None where there is nothing to choose.

    The devices work separately in `shard_map`, and there is no vmap over chunks, because cuDNN's attention supports
    neither keys that are split in another way than the queries nor keys that all chunks share.
    """

    def own(chunks, texts):
        texts = None if texts is None else jnp.repeat(texts, chunks.shape[1])
        return denoise(rearrange(chunks, 'g b ... -> (g b) ...'), level, texts).reshape(chunks.shape)

    if mesh is not None:
        split = sharding.split_rows(mesh).spec
        own = jax.shard_map(own, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return own(chunks, texts)


def predict_group(
    denoise: Callable,
    plan: Plan,
    level: Level,
    chunks: jax.Array,
    shift: jax.Array,
    left: jax.Array,
    tail: jax.Array,
    *,
    texts: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Clean predictions of g neighbouring chunks, blended with each other and with the chunk to their left.

    Args:
      denoise: as for `denoise_group`.
      plan: how the video is cut.
      level: of the chunks.
      chunks: [g, b, m, h, w, c].
      shift: [g] frames by which a chunk was shifted back.
      left: [g, b] as from `frames_from_left`.
      tail: [b, O, h, w, c], the prediction of the last frames of the chunk to their left.
      texts: [g] as for `denoise_group`.
      mesh: spreads the chunks over its data axis.

    Returns:
      The frames that are now decided, [g, b, m-O, h, w, c], and the tail that the next group needs.
    """
    overlap = plan.overlap
    x0 = denoise_group(denoise, level, chunks, texts, mesh)
    # A shifted chunk moves to where it would be without the shift; what exceeds the end of the video is cut off later.
    x0 = jax.vmap(partial(jnp.roll, axis=1))(x0, -shift)
    tails = jnp.concatenate([tail[None], x0[:-1, :, -overlap:]])
    from_left = (jnp.arange(overlap) < left[..., None])[..., None, None, None]
    head = jnp.where(from_left, tails, x0[:, :, :overlap])
    return jnp.concatenate([head, x0[:, :, overlap : plan.stride]], 2), x0[-1, :, -overlap:]


def predict_groups(
    denoise: Callable,
    plan: Plan,
    level: Level,
    x: jax.Array,
    indices: np.ndarray,
    shift: jax.Array,
    left: jax.Array,
    tail: jax.Array,
    *,
    texts: jax.Array | None = None,
    group: int = 1,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Clean prediction [b, n*(m-O)+O, h, w, c] of the frames that n neighbouring chunks of x cover.

    One scan over groups of chunks, each a `predict_group`; the carry is the tail that a group passes to the next. The
    last O frames are the tail of the last chunk, which a chunk to its right may decide differently.

    Args:
      denoise: as for `denoise_group`.
      plan: how the video is cut.
      level: of x.
      x: [b, f, h, w, c].
      indices: [n, m], the frames of x that each chunk has; n is a multiple of `group`.
      shift: [n] as for `predict_group`.
      left: [b, n] as from `frames_from_left`.
      tail: [b, O, h, w, c] as for `predict_group`.
      texts: [n] as for `denoise_group`.
      group: chunks that are computed together.
      mesh: spreads the chunks of a group over its data axis.
    """
    if mesh is not None:
        sharding.check_rows(group, mesh)

    def body(tail, inputs):
        indices, shift, left, texts = inputs
        chunks = rearrange(x[:, indices], 'b g f h w c -> g b f h w c')
        decided, tail = predict_group(denoise, plan, level, chunks, shift, left, tail, texts=texts, mesh=mesh)
        return tail, rearrange(decided, 'g b f h w c -> b (g f) h w c')

    grouped = (
        rearrange(indices, '(k g) f -> k g f', g=group),
        rearrange(shift, '(k g) -> k g', g=group),
        rearrange(left, 'b (k g) -> k g b', g=group),
        None if texts is None else rearrange(texts, '(k g) -> k g', g=group),
    )
    tail, decided = jax.lax.scan(body, tail, grouped)
    x0 = jnp.concatenate([rearrange(decided, 'k b f h w c -> b (k f) h w c'), tail], 1)
    # Every device takes the same solver step on the whole latent: split over devices, it would round differently.
    return x0 if mesh is None else jax.lax.with_sharding_constraint(x0, sharding.replicated(mesh))


def predict(
    denoise: Callable,
    plan: Plan,
    x: jax.Array,
    level: Level,
    left: jax.Array,
    *,
    texts: jax.Array | None = None,
    group: int = 1,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Clean prediction of the long latent x [b, F, h, w, c], chunk by chunk with randomized blending (eq. 8).

    left [b, n] says where the cuts fall, as from `frames_from_left`; texts, group and mesh as for `predict_groups`.
    """
    if plan.count == 1:
        return denoise_group(denoise, level, x[None], texts)[0]
    extra = -plan.count % group
    indices, shift = plan.rows(np.arange(plan.count + extra))
    left = jnp.pad(left, ((0, 0), (0, extra)), constant_values=plan.overlap)
    texts = None if texts is None else jnp.pad(texts, (0, extra), mode='edge')
    tail = jnp.zeros_like(x[:, : plan.overlap])
    x0 = predict_groups(denoise, plan, level, x, indices, shift, left, tail, texts=texts, group=group, mesh=mesh)
    return x0[:, : plan.frames]


def predict_apart(
    denoise: Callable, chunks: jax.Array, level: Level, *, texts: jax.Array | None = None, group: int = 1
) -> jax.Array:
    """Clean predictions of separate chunks [b, n, m, h, w, c] with texts [n], `group` at a time, for the baselines."""
    count = chunks.shape[1]
    padded = jnp.pad(chunks, [(0, 0), (0, -count % group)] + [(0, 0)] * (chunks.ndim - 2), mode='edge')
    groups = rearrange(padded, 'b (k g) ... -> k g b ...', g=group)
    if texts is not None:
        texts = rearrange(jnp.pad(texts, (0, -count % group), mode='edge'), '(k g) -> k g', g=group)
    x0 = jax.lax.map(lambda group: denoise_group(denoise, level, *group), (groups, texts))
    return rearrange(x0, 'k g b ... -> b (k g) ...')[:, :count]


def join(chunks: jax.Array | np.ndarray, plan: Plan) -> jax.Array | np.ndarray:
    """The long video [b, F, ...] made of chunks [b, n, m, ...]; an overlap comes from its left chunk."""
    ends = plan.indices[:, -1]
    owner = np.searchsorted(ends, np.arange(plan.frames))
    return chunks[:, owner, np.arange(plan.frames) - plan.indices[owner, 0]]


def stepper(predict: Callable, noise: Callable) -> Callable:
    """One denoising step as a function (trajectory, (step, now, next)) -> trajectory, for `sampling.steps`.

    predict(x, level, step) -> x0 and noise(step) both give arrays like x.
    """

    def step(trajectory, inputs):
        number, now, _ = inputs
        x0 = predict(trajectory.x, now, number)
        return advance(trajectory, x0, inputs, solver='dpmpp_2m_sde', noise=noise)

    return step


class Keys(NamedTuple):
    """The keys [b] of the noise and of the cuts, one for each video."""

    noise: jax.Array
    cuts: jax.Array


def split_keys(key: jax.Array) -> Keys:
    """The Keys that are made of one key [b] for each video."""
    return Keys(*rearrange(jax.vmap(jax.random.split)(key), 'b n -> n b'))


def denoising_step(
    denoise: Callable,
    plan: Plan,
    variant: str,
    keys: Keys,
    *,
    texts: jax.Array | None = None,
    group: int = 1,
    mesh: Mesh | None = None,
) -> Callable:
    """The `stepper` of a variant: 'paper', 'release', 'B' or 'B+S'; texts [n] of the chunks, as for `denoise_group`.

    The trajectory is that of the long latent [b, F, h, w, c], or for a baseline that of its chunks [b, n, m, h, w, c].
    """
    check_variant(variant)

    def predicted(x, level, i):
        if variant in BASELINES:
            return predict_apart(denoise, x, level, texts=texts, group=group)
        left = frames_from_left(variant, keys.cuts, i, plan)
        return predict(denoise, plan, x, level, left, texts=texts, group=group, mesh=mesh)

    def step(trajectory, inputs):
        shape = trajectory.x.shape[-3:]
        return stepper(predicted, lambda i: noise(variant, keys.noise, i + 1, plan, shape))(trajectory, inputs)

    return step
