"""The first two moments of every channel, which group norms need: one read of the tensor.

XLA's reductions over all but the last axis are slow on a GPU.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from st2v_jax.kernels import choice

WIDTH = 64  # channels of a block: a row of them fills the 128 bytes that shared memory is swizzled in
BLOCKS = 384  # that fill a card: three on each of its multiprocessors


class Tile(NamedTuple):
    """How a block reads: `rows` rows at a time, `stages` of them on the way; `splits` blocks share a column."""

    rows: int
    stages: int
    splits: int


def tile_for(shape: tuple[int, int, int]) -> Tile | None:
    """The tile for x [n, p, c], or None if none fits."""
    n, p, c = shape
    if c % WIDTH or p % 64:
        return None
    rows = next(rows for rows in (128, 64) if p % rows == 0)
    wanted = max(1, BLOCKS // (n * (c // WIDTH)))
    steps = p // rows
    splits = max(s for s in range(1, min(steps, wanted) + 1) if steps % s == 0)
    return Tile(rows, min(4, steps // splits), splits)


def channel_moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Means of x and of its square over `axes`, the last ones before the channels: float32, with axes of size 1."""
    shape = _joined(x, axes)
    taken = choice.takes_kernel('channel_moments', x, fits=tile_for(shape) is not None, shape=shape)
    return (_with_kernel if taken else with_xla)(x, axes)


def with_xla(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """`channel_moments` without the kernel."""
    wide = x.astype(jnp.float32)
    return jnp.mean(wide, axes, keepdims=True), jnp.mean(jnp.square(wide), axes, keepdims=True)


def _joined(x, axes):
    return math.prod(x.shape[: min(axes)]), math.prod(x.shape[axis] for axis in axes), x.shape[-1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _with_kernel(x, axes):
    shape = _joined(x, axes)
    sums = jnp.sum(in_tiles(x.reshape(shape), tile_for(shape)), axis=1) / shape[1]
    ones = (1,) * len(axes)
    return tuple(sums[:, i].reshape(*x.shape[: min(axes)], *ones, shape[-1]) for i in (0, 1))


def _forward(x, axes):
    return _with_kernel(x, axes), x


def _backward(axes, x, gradients):
    return jax.vjp(lambda x: with_xla(x, axes), x)[1](gradients)


_with_kernel.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnames=('tile', 'interpret'))  # lowered once for all layers of a shape
def in_tiles(x: jax.Array, tile: Tile, interpret: Any = None) -> jax.Array:
    """The kernel: sums of x [n, p, c] and of its square over the rows of each block, float32 [n, splits, 2, c].

    interpret: parameters of the interpreter, for tests.
    """
    from jax.experimental import pallas as pl  # here: it takes a second
    from jax.experimental.pallas import mosaic_gpu as plgpu

    (n, p, c), (rows, stages, splits) = x.shape, tile
    steps = p // rows // splits

    def body(x, sums, xs, out, have):
        row, part, column = (lax.axis_index(axis) for axis in ('row', 'part', 'column'))
        channels = pl.ds(column * WIDTH, WIDTH)

        def load(k):
            slot, here = lax.rem(k, stages), pl.ds((part * steps + k) * rows, rows)
            plgpu.copy_gmem_to_smem(x.at[row, here, channels], xs.at[slot], have.at[slot])

        def step(k, sums):
            total, square = sums
            slot = lax.rem(k, stages)
            plgpu.barrier_wait(have.at[slot])
            for first in range(0, rows, 64):
                v = xs[slot, pl.ds(first, 64)].astype(jnp.float32)
                total, square = total + v, square + v * v
            pl.when(k + stages < steps)(lambda: load(k + stages))
            return total, square

        for k in range(stages):
            load(jnp.int32(k))
        zeros = jnp.zeros((64, WIDTH), jnp.float32)
        total, square = lax.fori_loop(0, steps, step, (zeros, zeros))
        out[0], out[1] = jnp.sum(total, axis=0), jnp.sum(square, axis=0)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(out, sums.at[row, part, :, channels])
        plgpu.wait_smem_to_gmem(0)

    tiled = (plgpu.TilingTransform((8, WIDTH)), plgpu.SwizzleTransform(128))
    return plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((n, splits, 2, c), jnp.float32),
        scratch_types=(
            plgpu.SMEM((stages, rows, WIDTH), x.dtype, transforms=tiled),
            plgpu.SMEM((2, WIDTH), jnp.float32),
            plgpu.Barrier(num_arrivals=1, num_barriers=stages),
        ),
        grid=(n, splits, c // WIDTH),
        grid_names=('row', 'part', 'column'),
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=interpret,
    )(x)
