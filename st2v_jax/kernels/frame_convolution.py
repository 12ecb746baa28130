"""Group norm's affine, SiLU and the convolution over frames in one pass, with the moments that the next norm needs.

XLA reads or writes the tensor seven times for what the kernel does in one read and one write.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from st2v_jax.kernels import choice

STEP = 64  # input channels of a step: a row of them fills the 128 bytes that shared memory is swizzled in
SHARED_MEMORY = 227 * 1024  # bytes that a block may have
Result = tuple[jax.Array, jax.Array, jax.Array]


class Tile(NamedTuple):
    """What a block computes, and how: all frames of `pixels` pixels, `width` of the output channels.

    Its rows (frame, pixel) are divided over the warpgroups; `x_stages` and `w_stages` are how many steps of x and of
    the weights are in shared memory at a time.
    """

    pixels: int
    width: int
    warpgroups: int
    x_stages: int
    w_stages: int

    def fits(self, x_shape: tuple[int, ...], n: int) -> bool:
        """Whether the kernel can do x [b, f, p, c] -> [b, f, p, n] in such tiles."""
        _, f, p, c = x_shape
        rows, rest = divmod(f * self.pixels, self.warpgroups)
        return (
            p % self.pixels == 0
            and c % STEP == n % STEP == self.width % STEP == self.pixels % 8 == 0
            and rest == rows % 64 == f % self.warpgroups == 0
            and self._bytes(f) <= SHARED_MEMORY
        )

    def _bytes(self, f):
        x = self.x_stages * (f + 2) * self.pixels * STEP
        w = self.w_stages * 3 * STEP * self.width
        return 2 * (x + w) + 4 * 2 * (self.x_stages * STEP + self.warpgroups * self.width) + 2048


def tile_for(x_shape: tuple[int, ...], n: int) -> Tile | None:
    """The tile for x [b, f, p, c] -> [b, f, p, n], or None if no tile fits."""
    width = 128 if n % 128 == 0 else 64
    options = [Tile(pixels, width, w, width // 64 + (width == 64), 2) for pixels in (16, 8, 32) for w in (2, 1, 3)]
    return next((tile for tile in options if tile.fits(x_shape, n)), None)


def takes_kernel(x: jax.Array, n: int) -> bool:
    """Whether `frame_convolution` of x [b, f, h, w, c] to n channels takes its kernel."""
    pixels = _pixels(x)
    return choice.takes_kernel('frame_convolution', x, fits=tile_for(pixels, n) is not None, shape=pixels)


def frame_convolution(x: jax.Array, gain: jax.Array, shift: jax.Array, kernel: jax.Array, bias: jax.Array) -> Result:
    """SiLU(gain * x + shift), convolved with width 3 over frames, which are zero-padded; and moments of the result.

    Args:
      x: [b, f, h, w, c].
      gain, shift: float32 [b, 1, 1, 1, c].
      kernel: [3, c, n], in the type of x.
      bias: [n].

    Returns:
      y [b, f, h, w, n] in the type of x; the means of y and of its square over a video, float32 [b, 1, 1, 1, n].
    """
    form = _with_kernel if takes_kernel(x, kernel.shape[-1]) else with_xla
    return form(x, gain, shift, kernel, bias)


def with_xla(x: jax.Array, gain: jax.Array, shift: jax.Array, kernel: jax.Array, bias: jax.Array) -> Result:
    """`frame_convolution` without the kernel."""
    b, f, h, w, c = x.shape
    y = jax.nn.silu(x.astype(jnp.float32) * gain + shift).astype(x.dtype)
    # As a 2D convolution over (frames, pixels), which needs no copy of shifted frames and no 3D convolution.
    y = lax.conv_general_dilated(
        y.reshape(b, f, h * w, c),
        kernel[:, None],
        window_strides=(1, 1),
        padding=((1, 1), (0, 0)),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    y = y.reshape(b, f, h, w, -1) + bias.astype(x.dtype)
    wide = y.astype(jnp.float32)
    mean, square = (jnp.mean(of, (1, 2, 3), keepdims=True) for of in (wide, jnp.square(wide)))
    return y, mean, square


def _pixels(x):
    b, f, h, w, c = x.shape
    return b, f, h * w, c


@jax.custom_vjp
def _with_kernel(x, gain, shift, kernel, bias):
    (b, f, h, w, c), n = x.shape, kernel.shape[-1]
    affine = jnp.stack([gain.reshape(b, c), shift.reshape(b, c)], axis=1)
    tile = tile_for(_pixels(x), n)
    y, sums = in_tiles(x.reshape(_pixels(x)), affine, kernel, bias.astype(jnp.float32), tile)
    mean, square = jnp.split(jnp.sum(sums, (1, 2)) / (f * h * w), 2, axis=1)
    return y.reshape(b, f, h, w, n), mean[:, :, None, None], square[:, :, None, None]


def _forward(*args):
    return _with_kernel(*args), args


def _backward(args, gradients):
    return jax.vjp(with_xla, *args)[1](gradients)


_with_kernel.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnames=('tile', 'interpret'))  # lowered once for all layers of a shape
def in_tiles(
    x: jax.Array, affine: jax.Array, kernel: jax.Array, bias: jax.Array, tile: Tile, interpret: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The kernel: x [b, f, p, c], affine [b, 2, c], kernel [3, c, n], bias [n] -> y [b, f, p, n] and sums.

    sums [b, p / tile.pixels, tile.warpgroups, 2, n] are of y and of its square, over the rows of a warpgroup.
    interpret: parameters of the interpreter, for tests.
    """
    from jax.experimental import pallas as pl  # here: it takes a second
    from jax.experimental.pallas import mosaic_gpu as plgpu

    (b, f, p, c), n = x.shape, kernel.shape[-1]
    pixels, width, warpgroups, x_stages, w_stages = tile
    rows, frames, steps = f * pixels // warpgroups, f // warpgroups, c // STEP
    outputs = range(width // STEP)  # y leaves through stages of x
    x_slots, w_slots = max(min(x_stages, steps), len(outputs)), min(w_stages, steps)

    def body(x, affine, kernel, bias, zeros, y, sums, xs, ws, affines, out, have_x, have_w, ready, done):
        video, part, column = (lax.axis_index(axis) for axis in ('video', 'part', 'column'))
        me = lax.axis_index('warpgroup')
        here, columns = pl.ds(part * pixels, pixels), pl.ds(column * width, width)
        frame_rows = lambda frame: pl.ds((frame + 1) * pixels, pixels)  # before and after all frames are rows of zeros
        mine = pl.ds(pixels + me * rows, rows)

        def load_x(k):
            slot, channels = lax.rem(k, x_slots), pl.ds(k * STEP, STEP)
            for frame in range(f):
                at = xs.at[slot, frame_rows(frame)]
                plgpu.copy_gmem_to_smem(x.at[video, frame, here, channels], at, have_x.at[slot])
            plgpu.copy_gmem_to_smem(affine.at[video, :, channels], affines.at[slot], have_x.at[slot])

        def load_w(k):
            slot = lax.rem(k, w_slots)
            plgpu.copy_gmem_to_smem(kernel.at[:, pl.ds(k * STEP, STEP), columns], ws.at[slot], have_w.at[slot])

        @pl.when(me == 0)
        def _():
            for k in range(min(x_slots, steps)):
                load_x(jnp.int32(k))
            for k in range(w_slots):
                load_w(jnp.int32(k))
            for slot in range(x_slots):
                for frame in (-1, f):
                    plgpu.copy_gmem_to_smem(zeros, xs.at[slot, frame_rows(frame)], ready.at[0])
            plgpu.copy_gmem_to_smem(bias.at[columns], out.at[0, 0], ready.at[0])

        plgpu.barrier_wait(ready.at[0])
        added = out[0, 0]

        def activate(k):
            slot = lax.rem(k, x_slots)
            plgpu.barrier_wait(have_x.at[slot])
            gain, shift = (lax.broadcast_in_dim(affines[slot, i], (64, STEP), (1,)) for i in (0, 1))
            for first in range(0, rows, 64):  # few at a time, for registers are short
                at = pl.ds(pixels + me * rows + first, 64)
                v = xs[slot, at].astype(jnp.float32) * gain + shift
                xs[slot, at] = (v * (0.5 * jnp.tanh(0.5 * v) + 0.5)).astype(jnp.bfloat16)  # SiLU with one slow step
            plgpu.commit_smem()

        def all_done():
            """Waits until each warpgroup has read what it needs from the last stage, and written the next."""
            plgpu.barrier_arrive(done.at[0])
            plgpu.barrier_wait(done.at[0])

        activate(jnp.int32(0))
        all_done()

        def products(accumulator):
            def issue(k):
                slot, w_slot = lax.rem(k, x_slots), lax.rem(k, w_slots)
                plgpu.barrier_wait(have_w.at[w_slot])
                for tap in range(3):  # a frame earlier or later is the same shared memory some rows away
                    shifted = xs.at[slot, pl.ds(me * rows + tap * pixels, rows)]
                    plgpu.wgmma(accumulator, shifted, ws.at[w_slot, tap])

            def step(k, _):
                issue(k)
                activate(k + 1)  # while the tensor cores are busy
                plgpu.wgmma_wait(0)
                all_done()
                pl.when((me == 0) & (k + x_slots < steps))(lambda: load_x(k + x_slots))
                pl.when((me == 0) & (k + w_slots < steps))(lambda: load_w(k + w_slots))

            lax.fori_loop(0, steps - 1, step, None)
            issue(jnp.int32(steps - 1))
            plgpu.wgmma_wait(0)
            all_done()
            return accumulator[...]

        values = pl.run_scoped(products, plgpu.ACC((rows, width), jnp.float32))
        values = values + lax.broadcast_in_dim(added, (rows, width), (1,))
        for j in outputs:
            xs[j, mine] = values[:, j * STEP : (j + 1) * STEP].astype(jnp.bfloat16)
        out[me, 0], out[me, 1] = jnp.sum(values, axis=0), jnp.sum(values * values, axis=0)
        plgpu.commit_smem()
        for j in outputs:
            for i in range(frames):
                frame, channels = me * frames + i, pl.ds(column * width + j * STEP, STEP)
                plgpu.copy_smem_to_gmem(xs.at[j, frame_rows(frame)], y.at[video, frame, here, channels])
        plgpu.copy_smem_to_gmem(out.at[me], sums.at[video, part, me, :, columns])
        plgpu.wait_smem_to_gmem(0)

    tiled = (plgpu.TilingTransform((8, STEP)), plgpu.SwizzleTransform(128))
    call = plgpu.kernel(
        body,
        out_type=(
            jax.ShapeDtypeStruct((b, f, p, n), x.dtype),
            jax.ShapeDtypeStruct((b, p // pixels, warpgroups, 2, n), jnp.float32),
        ),
        scratch_types=(
            plgpu.SMEM((x_slots, (f + 2) * pixels, STEP), x.dtype, transforms=tiled),
            plgpu.SMEM((w_slots, 3, STEP, width), x.dtype, transforms=tiled),
            plgpu.SMEM((x_slots, 2, STEP), jnp.float32),
            plgpu.SMEM((warpgroups, 2, width), jnp.float32),
            plgpu.Barrier(num_arrivals=f + 1, num_barriers=x_slots),
            plgpu.Barrier(num_arrivals=1, num_barriers=w_slots),
            plgpu.Barrier(num_arrivals=2 * x_slots + 1, num_barriers=1),
            plgpu.Barrier(num_arrivals=warpgroups, num_barriers=1),
        ),
        grid=(b, p // pixels, pl.cdiv(n, width)),
        grid_names=('video', 'part', 'column'),
        num_threads=warpgroups,
        thread_name='warpgroup',
        compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=interpret,
    )
    return call(x, affine, kernel, bias, jnp.zeros((pixels, STEP), x.dtype))
