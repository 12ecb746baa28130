"""Other short-term memories, which CAM is compared with (the paper's ablation models Add-Cond and Conc-Cond).

Both are told by a mask which frames of the chunk are given. While training the mask varies; while sampling the first m
frames are given, the last ones of the chunk before.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.layers import Conv, Linear
from st2v_jax.models.unet3d import UNetConfig

ATTENTION, ADDITION, CONCATENATION = FUSIONS = ('attention', 'addition', 'concatenation')


def remembered(
    fusion: str, frames: jax.Array, *, length: int, encode: Callable, mask: jax.Array | None = None
) -> jax.Array:
    """What `StreamingDenoiser.condition` takes for conditioning frames [b, m, H, W, 3] of a chunk of `length` frames.

    For CAM the frames themselves. Else values [b, length, ..., c + 1]: of the frames that are given, zeros for the
    others, and the mask as one more channel. The values are frames (Add-Cond) or their latents (Conc-Cond).

    Args:
      fusion: of the CamConfig.
      encode: frames [b, m, H, W, 3] -> scaled latents [b, m, h, w, c].
      mask: [b, m] booleans, which of the frames are given; None is all of them.
    """
    if fusion == ATTENTION:
        return frames
    values = encode(frames) if fusion == CONCATENATION else frames
    mask = jnp.ones(values.shape[:2]) if mask is None else mask
    mask = jnp.broadcast_to(rearrange(mask, 'b m -> b m 1 1 1'), (*values.shape[:-1], 1)).astype(values.dtype)
    values = jnp.concatenate([values * mask, mask], axis=-1)
    return jnp.pad(values, ((0, 0), (0, length - values.shape[1]), (0, 0), (0, 0), (0, 0)))


class FeatureAdder(nnx.Module):
    """Add-Cond: a feature of the given frames joins a skip feature by a zero convolution and addition.

    x, memory [b, f, h, w, c] -> [b, f, h, w, c]: the extractor has seen all frames of the chunk.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.proj_out = Linear(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, memory: jax.Array) -> jax.Array:
        return x + self.proj_out(memory)


class ConcCond(nnx.Module):
    """Conc-Cond, which has no features: latents of the given frames and the mask are input channels of the UNet.

    The convolution of concatenated channels is the sum of two convolutions. That of the noisy latents is the UNet's
    own; this is the other one, and starts at zero. It offers what `Cam` offers.
    """

    def __init__(self, unet: UNetConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        channels = unet.in_channels + 1
        self.conv_in = Conv(channels, unet.channels[0], (3, 3), padding=1, use_bias=False, dtype=dtype, rngs=rngs)

    def encode(self, given: jax.Array) -> jax.Array:
        """Latents and mask [b, f, h, w, 5] -> what they add to the first convolution, [b, f, h, w, c]."""
        return self.conv_in(given)

    def keys_values(self, text: jax.Array) -> None:
        """None: it reads no text."""
        return None

    def extract(
        self, x: jax.Array, t: jax.Array, keys_values: None, conditioning: jax.Array, *, remat: str = 'none'
    ) -> jax.Array:
        """The conditioning as it is."""
        return conditioning

    def joins(self, memory: jax.Array) -> dict[str, jax.Array]:
        """Where the memory enters the UNet."""
        return {'concatenated': memory}
