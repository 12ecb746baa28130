"""APM, the appearance preservation module: long-term memory of an anchor frame (section 4.2).

The CLIP embedding of the anchor frame becomes tokens, which every spatial cross-attention mixes into the text.
"""

import dataclasses

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.layers import LayerNorm, Linear


@dataclasses.dataclass(frozen=True)
class ApmConfig:
    """Shape of APM; the defaults are the released ones.

    Attributes:
      image_width: width of the CLIP image embedding.
      inner_width: hidden width of the MLP that makes tokens.
      image_tokens, text_tokens: 16 + 77 = 93 tokens enter a mixer, 77 leave it.
    """

    image_width: int = 1024
    inner_width: int = 1280
    image_tokens: int = 16
    text_tokens: int = 77


class AnchorTokens(nnx.Module):
    """CLIP image embedding of the anchor frame [b, e] -> tokens [b, image_tokens, context_width]."""

    def __init__(self, config: ApmConfig, context_width: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.tokens = config.image_tokens
        self.linear_1 = Linear(config.image_width, config.inner_width, dtype=dtype, rngs=rngs)
        self.linear_2 = Linear(config.inner_width, config.image_tokens * context_width, dtype=dtype, rngs=rngs)

    def __call__(self, embedding: jax.Array) -> jax.Array:
        y = self.linear_2(nnx.silu(self.linear_1(embedding)))
        return einops.rearrange(y, 'b (s c) -> b s c', s=self.tokens)


class ContextMixer(nnx.Module):
    """x_cross = SiLU(alpha) * x_mixed + x_text of one cross-attention layer (eq. 6); alpha starts at 0.

    text [b, 77, c] and anchor tokens [b, 16, c] -> [b, 77, c]. The tokens are the channels of a convolution of width 3
    that slides along the c features.
    """

    def __init__(self, config: ApmConfig, context_width: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        tokens = config.text_tokens + config.image_tokens
        self.dtype = dtype
        self.kernel = nnx.Param(jnp.zeros((3, tokens, config.text_tokens)))
        self.bias = nnx.Param(jnp.zeros(config.text_tokens))
        self.norm = LayerNorm(context_width, dtype=dtype, rngs=rngs)
        self.alpha = nnx.Param(jnp.zeros(()))

    def __call__(self, text: jax.Array, anchor: jax.Array) -> jax.Array:
        tokens = jnp.concatenate([text, anchor], axis=1).astype(self.dtype)
        padded = jnp.pad(tokens, ((0, 0), (0, 0), (1, 1)))
        shifted = jnp.stack([padded[..., :-2], tokens, padded[..., 2:]])
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        mixed = self.norm(jnp.einsum('k b i c, k i o -> b o c', shifted, kernel) + bias[:, None])
        return nnx.silu(self.alpha[...]).astype(self.dtype) * mixed + text.astype(self.dtype)


class Apm(nnx.Module):
    """Anchor tokens and one mixer for each spatial cross-attention of the base UNet."""

    def __init__(
        self, config: ApmConfig, context_width: int, layers: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        self.anchor = AnchorTokens(config, context_width, dtype=dtype, rngs=rngs)
        self.mixers = nnx.List(ContextMixer(config, context_width, dtype=dtype, rngs=rngs) for _ in range(layers))

    def contexts(self, text: jax.Array, anchor: jax.Array) -> list[jax.Array]:
        """The context [b, 77, c] of each cross-attention layer, from text [b, 77, c] and anchor tokens [b, 16, c]."""
        return [mixer(text, anchor) for mixer in self.mixers]
