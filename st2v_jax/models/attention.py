"""Attention of the Video-LDM UNet: over the pixels of a frame, over the text, over the frames of a pixel."""

from functools import partial

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.kernels.frame_attention import attention_over_frames
from st2v_jax.kernels.gated_product import gated_product
from st2v_jax.kernels.softmax_attention import attend
from st2v_jax.models.layers import VIDEO, GroupNorm, LayerNorm, Linear, per_branch

KeysValues = tuple[jax.Array, jax.Array]  # [b, s, n, d] each


class Attention(nnx.Module):
    """Multi-head attention; keys and values can be computed before the queries.

    Args:
      channels: width of the queries' tokens and of the result.
      head_size: width of a head.
      heads: their number, by default channels // head_size.
      context_width: width of the tokens that keys and values are made of, by default `channels`.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_size: int,
        heads: int | None = None,
        context_width: int | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        heads = heads or channels // head_size
        context_width = context_width or channels
        linear = partial(Linear, dtype=dtype, rngs=rngs)
        self.heads = heads
        self.to_q = linear(channels, heads * head_size, use_bias=False)
        self.to_k = linear(context_width, heads * head_size, use_bias=False)
        self.to_v = linear(context_width, heads * head_size, use_bias=False)
        self.to_out = linear(heads * head_size, channels)

    def keys_values(self, tokens: jax.Array) -> KeysValues:
        """Keys and values [b, s, n, d] of tokens [b, s, c]."""
        return self._split(self.to_k(tokens)), self._split(self.to_v(tokens))

    def __call__(self, x: jax.Array, keys_values: KeysValues) -> jax.Array:
        """Attention of x [b, t, c] to keys and values [b, s, n, d] -> [b, t, c].

        Keys and values may be those of several guidance branches, [k * b, s, n, d], and then so is the result.
        """
        y = attend(per_branch(self._split(self.to_q(x)), len(keys_values[0])), *keys_values)
        return self.to_out(einops.rearrange(y, 'b t n d -> b t (n d)'))

    def over_frames(self, x: jax.Array) -> jax.Array:
        """Self-attention over the frames of x [b, f, p, c], for each pixel p on its own."""
        y = attention_over_frames(self.to_q(x), self.to_k(x), self.to_v(x), self.heads)
        return self.to_out(y)

    def _split(self, x):
        return einops.rearrange(x, 'b s (n d) -> b s n d', n=self.heads)


class FeedForward(nnx.Module):
    """Projection to two times four times the width, GEGLU, and back."""

    def __init__(self, channels: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.proj = Linear(channels, 8 * channels, dtype=dtype, rngs=rngs)
        self.out = Linear(4 * channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.proj.kernel[...], self.proj.bias[...]
        return self.out(gated_product(x, kernel, bias))


class SpatialTransformer(nnx.Module):
    """Self-attention over the pixels of a frame, cross-attention to the context and a feed-forward, with a residual.

    x [b, f, h, w, c] -> the same shape. keys_values are those of this layer's context, from `attn2.keys_values`.
    Those of several branches of guidance are [k * b, s, n, d], and so is the result.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_size: int,
        context_width: int,
        groups: int,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        attention = partial(Attention, channels, head_size=head_size, dtype=dtype, rngs=rngs)
        layer_norm = partial(LayerNorm, channels, dtype=dtype, rngs=rngs)
        self.norm = GroupNorm(channels, groups, epsilon=1e-6, dtype=dtype)
        self.proj_in = Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.norm1, self.attn1 = layer_norm(), attention()
        self.norm2, self.attn2 = layer_norm(), attention(context_width=context_width)
        self.norm3, self.ff = layer_norm(), FeedForward(channels, dtype=dtype, rngs=rngs)
        self.proj_out = Linear(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, keys_values: KeysValues) -> jax.Array:
        b, f, h, w, _ = x.shape
        y = einops.rearrange(self.proj_in(self.norm(x)), 'b f h w c -> (b f) (h w) c')
        pixels = self.norm1(y)
        y = y + self.attn1(pixels, self.attn1.keys_values(pixels))
        # All frames of a video read the same context, so they are one long sequence of queries.
        y = einops.rearrange(y, '(b f) p c -> b (f p) c', b=b)
        x, attended = (per_branch(value, len(keys_values[0])) for value in (x, y))
        y = attended + self.attn2(self.norm2(y), keys_values)
        y = y + self.ff(self.norm3(y))
        return x + self.proj_out(einops.rearrange(y, 'b (f h w) c -> b f h w c', f=f, h=h, w=w))


class TemporalTransformer(nnx.Module):
    """Two self-attentions over frames and a feed-forward, for each pixel on its own, with a residual.

    x [b, f, h, w, c] -> the same shape. The inner width is heads * head_size, by default c. There is no position code.
    """

    over_frames = staticmethod(Attention.over_frames)  # the baseline FreeNoise attends in windows instead

    def __init__(
        self,
        channels: int,
        *,
        head_size: int,
        groups: int,
        heads: int | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        heads = heads or channels // head_size
        width = heads * head_size
        attention = partial(Attention, width, head_size=head_size, dtype=dtype, rngs=rngs)
        layer_norm = partial(LayerNorm, width, dtype=dtype, rngs=rngs)
        self.norm = GroupNorm(channels, groups, epsilon=1e-6, axes=VIDEO, dtype=dtype)
        self.proj_in = Linear(channels, width, dtype=dtype, rngs=rngs)
        self.norm1, self.attn1 = layer_norm(), attention()
        self.norm2, self.attn2 = layer_norm(), attention()
        self.norm3, self.ff = layer_norm(), FeedForward(width, dtype=dtype, rngs=rngs)
        self.proj_out = Linear(width, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        _, _, h, w, _ = x.shape
        y = einops.rearrange(self.proj_in(self.norm(x)), 'b f h w c -> b f (h w) c')
        y = y + self.over_frames(self.attn1, self.norm1(y))
        y = y + self.over_frames(self.attn2, self.norm2(y))
        y = y + self.ff(self.norm3(y))
        return x + self.proj_out(einops.rearrange(y, 'b f (h w) c -> b f h w c', h=h, w=w))
