"""Layers of the Video-LDM UNet: norms, time embedding, residual block, temporal convolution, resampling.

x is [b, f, h, w, c] everywhere. `build.init` makes the weights; the initialisers here are zeros, so that building a
module costs nothing.
"""

import functools
import math
from functools import partial

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.kernels.channel_moments import channel_moments

zeros = nnx.initializers.zeros
Linear = partial(nnx.Linear, kernel_init=zeros)
Conv = partial(nnx.Conv, kernel_init=zeros)
Embed = partial(nnx.Embed, embedding_init=zeros)
LayerNorm = partial(nnx.LayerNorm, epsilon=1e-5)

FRAME = (-3, -2)  # axes (h, w): each frame on its own
VIDEO = (-4, -3, -2)  # axes (f, h, w): the frames together


def per_branch(x: jax.Array, rows: int, videos: int | None = None) -> jax.Array:
    """x of some guidance branches [k * b, ...] -> of all of them, [rows, ...]; rows are ordered (branch, video).

    The branches of a guided step have the same noisy latents. They differ from the first cross-attention on, so what
    lies before it is computed once for a video, and repeated where a branch's own values meet it.

    Args:
      x: [k * b, ...]; the branches that it lacks have the values of its last one.
      rows: n * b.
      videos: b; None means that x is the same for all branches, k = 1.
    """
    if len(x) == rows:
        return x
    videos = len(x) if videos is None else videos
    return jnp.concatenate([x, *[x[-videos:]] * ((rows - len(x)) // videos)])


class GroupNorm(nnx.Module):
    """Group norm of x [..., c] over `axes` and the channels of a group, in float32, with one read for both moments.

    Args:
      channels: c, a multiple of groups.
      groups: number of channel groups; each has its own mean and variance.
      epsilon: added to the variance.
      axes: negative axes that share moments, FRAME or VIDEO.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        epsilon: float,
        axes: tuple[int, ...] = FRAME,
        dtype: DTypeLike = jnp.float32,
    ):
        if channels % groups:
            raise ValueError(f'channels={channels} is not a multiple of groups={groups}')
        self.groups, self.epsilon, self.axes, self.dtype = groups, epsilon, axes, dtype
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array, *, silu: bool = False) -> jax.Array:
        """Normalised x, and SiLU of it with silu=True, [..., c] in `dtype`."""
        y = _group_norm(x, self.scale[...], self.bias[...], self.groups, self.epsilon, self.axes, silu)
        return y.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _group_norm(x, scale, bias, groups, epsilon, axes, silu):
    """Float32 group norm of x, with SiLU or not.

    The gradient needs x in its own type and the moments, and computes the rest again: automatic differentiation would
    keep several float32 tensors as large as x.
    """
    return _normalised(x, scale, bias, groups, epsilon, axes, silu)[0]


def _normalised(x, scale, bias, groups, epsilon, axes, silu):
    wide = x.astype(jnp.float32)
    # Moments per channel first: then the large tensor keeps its layout, and only c numbers are joined into groups.
    mean, square = (_of_groups(m, groups) for m in channel_moments(x, axes))
    rstd = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)
    gain = rstd * scale
    y = wide * gain + (bias - mean * gain)
    return nnx.silu(y) if silu else y, (mean, rstd)


def _group_norm_forward(x, scale, bias, *static):
    y, moments = _normalised(x, scale, bias, *static)
    return y, (x, scale, bias, moments)


def _group_norm_backward(groups, epsilon, axes, silu, saved, dy):
    x, scale, bias, (mean, rstd) = saved
    unit = (x.astype(jnp.float32) - mean) * rstd
    if silu:
        y = unit * scale + bias
        gate = nnx.sigmoid(y)
        dy = dy * gate * (1 + y * (1 - gate))
    means = [jnp.mean(of, axes, keepdims=True) for of in (dy, dy * unit)]
    of_bias, of_scale = (
        jnp.sum(of, tuple(range(x.ndim - 1))) * math.prod(x.shape[axis] for axis in axes) for of in means
    )
    shift, slope = (_of_groups(scale * of, groups) for of in means)
    dx = rstd * (dy * scale - shift - unit * slope)
    return dx.astype(x.dtype), of_scale, of_bias


_group_norm.defvjp(_group_norm_forward, _group_norm_backward)


def _of_groups(moment, groups):
    """The mean of each group of channels, for each of its channels."""
    joined = einops.reduce(moment, '... (g c) -> ... g', 'mean', g=groups)
    return einops.repeat(joined, '... g -> ... (g c)', c=moment.shape[-1] // groups)


def sinusoidal(t: jax.Array, width: int) -> jax.Array:
    """Sinusoidal embedding of diffusion steps t [b] -> [b, width]: cosines, then sines, of 10000^(-i / half)."""
    half = width // 2
    frequency = np.exp(-np.log(10_000) * np.arange(half) / half)
    angle = t.astype(jnp.float32)[:, None] * frequency.astype(np.float32)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class TimeEmbedding(nnx.Module):
    """Diffusion step t [b] -> [b, 4 * width]: sinusoids, linear, SiLU, linear."""

    def __init__(self, width: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.width = width
        self.linear_1 = Linear(width, 4 * width, dtype=dtype, rngs=rngs)
        self.linear_2 = Linear(4 * width, 4 * width, dtype=dtype, rngs=rngs)

    def __call__(self, t: jax.Array) -> jax.Array:
        return self.linear_2(nnx.silu(self.linear_1(sinusoidal(t, self.width))))


class ResidualBlock(nnx.Module):
    """Twice group norm, SiLU and 3x3 convolution on each frame, with the time embedding added in between.

    x [b, f, h, w, in_channels], time [b, time_width] -> [b, f, h, w, out_channels]. x may be that of several guidance
    branches, which share their time.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_width: int,
        *,
        groups: int,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        norm = partial(GroupNorm, groups=groups, epsilon=1e-5, dtype=dtype)
        conv = partial(Conv, dtype=dtype, rngs=rngs)
        self.norm1 = norm(in_channels)
        self.conv1 = conv(in_channels, out_channels, (3, 3), padding=1)
        self.time_emb_proj = Linear(time_width, out_channels, dtype=dtype, rngs=rngs)
        self.norm2 = norm(out_channels)
        self.conv2 = conv(out_channels, out_channels, (3, 3), padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = Linear(in_channels, out_channels, dtype=dtype, rngs=rngs)
        self.has_shortcut = in_channels != out_channels

    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        y = self.conv1(self.norm1(x, silu=True))
        y = y + per_branch(self.time_emb_proj(nnx.silu(time)), len(y))[:, None, None, None, :]
        y = self.conv2(self.norm2(y, silu=True))
        return y + (self.conv_shortcut(x) if self.has_shortcut else x)


class FrameConv(nnx.Module):
    """Convolution of width 3 over frames, zero-padded in time: x [b, f, h, w, c] -> [b, f, h, w, c]."""

    def __init__(self, channels: int, *, dtype: DTypeLike = jnp.float32):
        self.dtype = dtype
        self.kernel = nnx.Param(jnp.zeros((3, channels, channels)))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel, bias = (a.astype(self.dtype) for a in (x, self.kernel[...], self.bias[...]))
        # As a 2D convolution over (frames, pixels), which needs no copy of shifted frames and no 3D convolution.
        y = jax.lax.conv_general_dilated(
            einops.rearrange(x, 'b f h w c -> b f (h w) c'),
            einops.rearrange(kernel, 'k i o -> k 1 i o'),
            window_strides=(1, 1),
            padding=((1, 1), (0, 0)),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )
        return einops.rearrange(y, 'b f (h w) c -> b f h w c', h=x.shape[2]) + bias


class TemporalConvBlock(nnx.Module):
    """Four times [group norm over the video, SiLU, convolution over frames], with a residual around all four."""

    def __init__(self, channels: int, *, groups: int, dtype: DTypeLike = jnp.float32):
        norm = partial(GroupNorm, channels, groups, epsilon=1e-5, axes=VIDEO, dtype=dtype)
        self.norms = nnx.List([norm() for _ in range(4)])
        self.convs = nnx.List([FrameConv(channels, dtype=dtype) for _ in range(4)])

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(norm(y, silu=True))
        return x + y


class Downsample(nnx.Module):
    """3x3 convolution with stride 2; `padding` is (rows, columns): (1, 1), or (2, 1) in the Refiner."""

    def __init__(self, channels: int, *, padding: tuple[int, int], dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        pads = [(p, p) for p in padding]
        self.conv = Conv(channels, channels, (3, 3), strides=2, padding=pads, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x)


class Upsample(nnx.Module):
    """Nearest-neighbour resize to the size (h, w) of the next skip connection, then a 3x3 convolution.

    Undoes the `Downsample` of the same padding: rows and columns that it padded beyond one are cut off again.
    """

    def __init__(self, channels: int, *, padding: tuple[int, int], dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.cut = tuple(p - 1 for p in padding)
        self.conv = Conv(channels, channels, (3, 3), padding=1, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        for axis, cut, target in zip(FRAME, self.cut, size, strict=True):
            length = x.shape[axis]
            if cut or target == 2 * length:
                x = jnp.repeat(x, 2, axis)
                x = jax.lax.slice_in_dim(x, cut, 2 * length - cut, axis=axis % x.ndim)
            else:
                x = jnp.take(x, np.arange(target) * length // target, axis)
        return self.conv(x)
