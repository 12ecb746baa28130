"""The short-term memories that CAM is compared with: the paper's ablation models Add-Cond and Conc-Cond.

Both receive a mask that says which frames of the chunk are given. The mask varies in training. In sampling the first m
frames are given; they are the last frames of the previous chunk.
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
    """What `StreamingDenoiser.condition` receives as the frames that condition a chunk.

    CAM receives the frames themselves. The others receive [b, length, ..., c + 1]: the frames (Add-Cond) or their
    latents (Conc-Cond), zero where no frame is given, with the mask as the last channel.

    Args:
      fusion: that of the CamConfig.
      frames: [b, m, H, W, 3] conditioning frames.
      length: frames of a chunk.
      encode: frames [b, m, H, W, 3] -> scaled latents [b, m, h, w, c].
      mask: [b, m] booleans, which of the frames are given; None means all.
    """
    if fusion == ATTENTION:
        return frames
    values = encode(frames) if fusion == CONCATENATION else frames
    mask = jnp.ones(values.shape[:2]) if mask is None else mask
    mask = jnp.broadcast_to(rearrange(mask, 'b m -> b m 1 1 1'), (*values.shape[:-1], 1)).astype(values.dtype)
    values = jnp.concatenate([values * mask, mask], axis=-1)
    return jnp.pad(values, ((0, 0), (0, length - values.shape[1]), (0, 0), (0, 0), (0, 0)))


class FeatureAdder(nnx.Module):
    """Add-Cond: adds a feature of the given frames to a skip feature, through a convolution that starts at zero.

    x, memory [b, f, h, w, c] -> [b, f, h, w, c]. The memory has all f frames, since the extractor sees the whole chunk.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.proj_out = Linear(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, memory: jax.Array) -> jax.Array:
        return x + self.proj_out(memory)


class ConcCond(nnx.Module):
    """Conc-Cond: the latents of the given frames and their mask are further input channels of the UNet.

    A convolution of concatenated channels is the sum of two convolutions. The UNet has the one of the noisy latents.
    This is the other one, and it starts at zero. The methods are those of `Cam`.
    """

    def __init__(self, unet: UNetConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        channels = unet.in_channels + 1
        self.conv_in = Conv(channels, unet.channels[0], (3, 3), padding=1, use_bias=False, dtype=dtype, rngs=rngs)

    def encode(self, given: jax.Array) -> jax.Array:
        """Latents and mask [b, f, h, w, 5] -> what they add to the first convolution, [b, f, h, w, c]."""
        return self.conv_in(given)

    def keys_values(self, text: jax.Array) -> None:
        """None, because it reads no text."""
        return None

    def extract(
        self, x: jax.Array, t: jax.Array, keys_values: None, conditioning: jax.Array, *, remat: str = 'none'
    ) -> jax.Array:
        """The conditioning, unchanged."""
        return conditioning

    def joins(self, memory: jax.Array) -> dict[str, jax.Array]:
        """The keyword arguments that bring the memory into `UNet3D`."""
        return {'concatenated': memory}
