"""Attention over the frames of each pixel, on q, k and v where the projections leave them.

XLA turns q, k and v so that frames lie next to each other, and the result back: eight passes over memory of the size
of x. The kernel reads blocks of all frames and some neighbouring pixels as they lie. It takes the scores of all rows of
a block, (frame, pixel), with all others, and masks those of other pixels: products are cheap, passes are not.
"""

import functools
import math

import einops
import jax
import jax.numpy as jnp
from jax import lax

from st2v_jax.kernels.choice import takes_kernel
from st2v_jax.kernels.softmax_attention import attend

HEAD = 64  # width of a head: the 128 bytes of bfloat16 that shared memory is swizzled in
ROWS = 64  # of a product of the tensor cores
MOST_ROWS = 256  # of a block, as keys


def attention_over_frames(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """Self-attention over frames of q, k, v [b, f, p, heads * d], each pixel p on its own -> the same shape."""
    if takes_kernel('frame_attention', q, fits=fits(q, heads), shape=q.shape):
        return _with_kernel(q, k, v, heads)
    return with_xla(q, k, v, heads)


def with_xla(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """`attention_over_frames` as XLA compiles it."""
    b = len(q)
    q, k, v = (einops.rearrange(x, 'b f p (n d) -> (b p) f n d', n=heads) for x in (q, k, v))
    return einops.rearrange(attend(q, k, v), '(b p) f n d -> b f p (n d)', b=b)


def fits(q: jax.Array, heads: int) -> bool:
    """Whether the kernel can do q [b, f, p, heads * d]."""
    _, f, p, width = q.shape
    pixels = _pixels(f)
    return width == heads * HEAD and f * pixels <= MOST_ROWS and p % pixels == 0


def _pixels(f):
    """Pixels of a block: a multiple of 8, which is a row of swizzled tiles, that makes whole products of f frames."""
    return max(8, ROWS // math.gcd(f, ROWS))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _with_kernel(q, k, v, heads):
    return with_kernel(q, k, v, heads)


def _forward(q, k, v, heads):
    return _with_kernel(q, k, v, heads), (q, k, v)


def _backward(heads, saved, dy):
    _, pull = jax.vjp(lambda q, k, v: with_xla(q, k, v, heads), *saved)
    return pull(dy)


_with_kernel.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnames='heads')  # lowered once for all layers of a shape
def with_kernel(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """`attention_over_frames` by the kernel, for shapes that `fits` allows; a block has one head of some pixels."""
    from jax.experimental import pallas as pl  # here: it takes a second
    from jax.experimental.pallas import mosaic_gpu as plgpu

    b, f, p, _ = q.shape
    pixels = _pixels(f)
    rows = f * pixels
    tiles = p // pixels
    scale = HEAD**-0.5 * math.log2(math.e)  # exponentials are powers of two here

    def body(q, k, v, out, *scratch):
        *stored, loaded = scratch
        block = lax.axis_index('block')
        tile, head = block // heads, block % heads
        video, number = tile // tiles, tile % tiles
        here = pl.ds(video * f, f), pl.ds(number * pixels, pixels), pl.ds(head * HEAD, HEAD)
        for source, held in zip((q, k, v), stored, strict=True):
            plgpu.copy_gmem_to_smem(source.at[here], held, loaded)
        plgpu.barrier_wait(loaded)
        queries, keys, values = (held.reshape(rows, HEAD) for held in stored)
        for begin in range(0, rows, ROWS):
            attend_rows(queries.at[pl.ds(begin, ROWS)], keys, values)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(stored[0], out.at[here])
        plgpu.wait_smem_to_gmem(0)

    def attend_rows(mine, keys, values):
        """Puts the attention of some rows in their place, for nobody needs them as queries any more."""

        def scores(total):
            plgpu.wgmma(total, mine, keys.transpose((1, 0)))
            plgpu.wgmma_wait(0)
            return total[...]

        s = pl.run_scoped(scores, plgpu.ACC((ROWS, rows), jnp.float32)) * scale
        pixel, other = (lax.broadcasted_iota(jnp.int32, s.shape, axis) & (pixels - 1) for axis in (0, 1))
        s = jnp.where(pixel == other, s, -1e30)
        e = jnp.exp2(s - lax.broadcast_in_dim(jnp.max(s, axis=1), s.shape, (0,)))
        weights = e.astype(mine.dtype)

        def weighted(total):
            plgpu.wgmma(total, weights, values)
            plgpu.wgmma_wait(0)
            return total[...]

        y = pl.run_scoped(weighted, plgpu.ACC((ROWS, HEAD), jnp.float32))
        mine[...] = (y / lax.broadcast_in_dim(jnp.sum(e, axis=1), y.shape, (0,))).astype(mine.dtype)

    transforms = plgpu.TilingTransform((1, 8, HEAD)), plgpu.SwizzleTransform(128)
    held = plgpu.SMEM((f, pixels, HEAD), q.dtype, transforms=transforms)
    y = plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((b * f, p, q.shape[-1]), q.dtype),
        scratch_types=[held] * 3 + [plgpu.Barrier(num_arrivals=3)],
        grid=(b * tiles * heads,),
        grid_names=('block',),
        compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
    )(*(x.reshape(b * f, p, -1) for x in (q, k, v)))  # copies have few dimensions
    return y.reshape(q.shape)
