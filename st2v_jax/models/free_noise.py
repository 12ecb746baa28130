"""The UNet of FreeNoise, a baseline that makes all frames of a long video at once (Qiu et al. 2023).

The parameters are those of the Video-LDM. Its attentions over frames, which were trained on short videos, look at
windows of frames; where windows overlap, their results are averaged, the middle of a window counting most.
"""

from functools import partial

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.attention import Attention, TemporalTransformer
from st2v_jax.models.unet3d import UNet3D, UNetConfig


class WindowedUNet3D(UNet3D):
    """UNet3D for any number of frames, at least a window; of exactly one window, it is UNet3D.

    Args:
      config: of the UNet.
      length: frames of a window, those of the videos that the UNet was trained on.
      stride: frames from one window to the next.
    """

    def __init__(self, config: UNetConfig, length: int, stride: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        for _, module in nnx.iter_modules(self):
            if isinstance(module, TemporalTransformer):
                module.over_frames = partial(_over_windows, length, stride)


def windows(frames: int, length: int, stride: int) -> np.ndarray:
    """The frames [k, length] of each window; the last one ends with the video."""
    if frames < length:
        raise ValueError(f'a video in windows has at least the {length} frames of one, not {frames}')
    starts = [*range(0, frames - length, stride), frames - length]
    return np.array(starts)[:, None] + np.arange(length)


def _over_windows(length: int, stride: int, attention: Attention, x: jax.Array) -> jax.Array:
    """Self-attention of x [b, f, p, c] over the frames of each window, averaged where windows overlap."""
    shown = windows(x.shape[1], length, stride)
    weight = 1.0 + np.minimum(np.arange(length), np.arange(length)[::-1])
    attended = attention.over_frames(einops.rearrange(x[:, shown], 'b k f p c -> (b k) f p c'))
    attended = einops.rearrange(attended, '(b k) f p c -> b k f p c', b=len(x)).astype(jnp.float32)
    total = jnp.zeros(x.shape, jnp.float32).at[:, shown].add(attended * weight[:, None, None])
    counted = np.bincount(shown.ravel(), np.tile(weight, len(shown)))
    return (total / counted[:, None, None]).astype(x.dtype)
