"""Product with GEGLU in its epilogue: of a feed-forward's first product only value * GELU(gate) is written.

XLA writes (value, gate), eight times as wide as x, and reads it again. The kernel sums up both for the same block of
outputs, and combines them in registers.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from st2v_jax.kernels.choice import takes_kernel
from st2v_jax.kernels.geglu import geglu

DEEP = 64  # channels of x that a step sums over: the 128 bytes of bfloat16 that shared memory is swizzled in
ROWS, COLUMNS = 64, 128  # of the outputs that one warpgroup sums up; a block has two, one below the other
AHEAD = 4  # steps of the sum that are loaded ahead
PROCESSORS = 132  # of an H100 or H200; as many blocks run, each of which takes several outputs


def gated_product(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """value * GELU(gate) of (value, gate) = x @ kernel + bias: x [..., c], kernel [c, 2 * m] -> [..., m]."""
    rows = (x.size // x.shape[-1], x.shape[-1])
    if takes_kernel('gated_product', x, fits=fits(x, kernel), shape=rows):
        return _with_kernel(x, kernel.astype(x.dtype), bias)
    return with_xla(x, kernel, bias)


def with_xla(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`gated_product` as XLA compiles it."""
    return geglu(x @ kernel.astype(x.dtype) + bias.astype(x.dtype))


def fits(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the kernel can do x [..., c] and kernel [c, 2 * m]."""
    c, width = kernel.shape
    return c % DEEP == 0 and width % (2 * COLUMNS) == 0 and x.size // c >= 2 * ROWS


def _normal_cdf(x):
    """The normal distribution function in float32, to 1e-7: Abramowitz and Stegun, 7.1.26; Mosaic has no erf."""
    t = 1 / (1 + 0.3275911 * 0.5**0.5 * jnp.abs(x))
    polynomial = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * polynomial * jnp.exp2(x * x * (-0.5 * math.log2(math.e)))
    return jnp.where(x >= 0, 1 - tail, tail)


@jax.custom_vjp
def _with_kernel(x, kernel, bias):
    return with_kernel(x, kernel, bias)


def _forward(*given):
    return _with_kernel(*given), given


def _backward(saved, dy):
    _, pull = jax.vjp(with_xla, *saved)
    return pull(dy)


_with_kernel.defvjp(_forward, _backward)


@jax.jit  # lowered once for all layers of a shape
def with_kernel(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`gated_product` by the kernel, for shapes that `fits` allows."""
    from jax.experimental import pallas as pl  # here: it takes a second
    from jax.experimental.pallas import mosaic_gpu as plgpu

    c, width = kernel.shape
    m = width // 2
    flat = x.reshape(-1, c)
    down, across = pl.cdiv(len(flat), 2 * ROWS), m // COLUMNS
    transforms = plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128)

    def pipeline(body, context):
        weights = plgpu.BlockSpec((DEEP, COLUMNS), lambda step: (step, 0), transforms=transforms)
        return plgpu.emit_pipeline_warp_specialized(
            body,
            grid=(c // DEEP,),
            memory_registers=40,
            in_specs=[
                plgpu.BlockSpec((2 * ROWS, DEEP), lambda step: (0, step), transforms=transforms),
                weights,
                weights,
            ],
            wg_axis='warpgroup',
            num_compute_wgs=2,
            max_concurrent_steps=min(AHEAD, c // DEEP),
            compute_context=context,
        )

    def body(x, kernel, bias, out):
        def scoped(allocated, results):
            warpgroup = lax.axis_index('warpgroup')
            own = pl.ds(warpgroup * ROWS, ROWS)

            @plgpu.nd_loop((down * across,), collective_axes='block')
            def _(loop):
                row, column = plgpu.planar_snake(loop.index[0], (down, across), 1, 8)
                rows = pl.ds(row * 2 * ROWS, 2 * ROWS)
                columns, gates = (pl.ds(begin + column * COLUMNS, COLUMNS) for begin in (0, m))

                def context(run):
                    def summed(value, gate):
                        run((value, gate))
                        value, gate = (plgpu.layout_cast(total[...], plgpu.Layout.WGMMA) for total in (value, gate))
                        value, gate = value + added(columns), gate + added(gates)
                        y = value * gate * _normal_cdf(gate)
                        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
                        mine = results.at[warpgroup]
                        mine[...] = y.astype(out.dtype)
                        plgpu.commit_smem()
                        plgpu.copy_smem_to_gmem(mine, out.at[rows, columns].at[own])

                    def added(columns):
                        loaded = plgpu.load(bias, columns, layout=plgpu.Layout.WGMMA.reduce(0), optimized=False)
                        return lax.broadcast_in_dim(loaded, (ROWS, COLUMNS), (1,))

                    total = plgpu.ACC((ROWS, COLUMNS), jnp.float32)
                    pl.run_scoped(summed, total, total)

                def step(_, x, of_value, of_gate, totals):
                    for total, weights in zip(totals, (of_value, of_gate), strict=True):
                        plgpu.wgmma(total, x.at[own], weights)
                    plgpu.wgmma_wait(0)
                    return totals

                pipeline(step, context)(x.at[rows], kernel.at[:, columns], kernel.at[:, gates], allocations=allocated)

            plgpu.wait_smem_to_gmem(0)

        nothing = lambda *_: None
        pl.run_scoped(
            scoped,
            pipeline(nothing, nothing).get_allocations(x, kernel, kernel),
            plgpu.SMEM((2, ROWS, COLUMNS), out.dtype, transforms=transforms),
            collective_axes='warpgroup',
        )

    y = plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((len(flat), m), x.dtype),
        grid=(min(down * across, PROCESSORS),),
        grid_names=('block',),
        num_threads=3,
        thread_name='warpgroup',
        compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
    )(flat, kernel, bias)
    return y.reshape(*x.shape[:-1], m)
