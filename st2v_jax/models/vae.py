"""The frame-wise autoencoder: every frame of a video is an image, [n, h, w, 3] <-> latents [n, h/s, w/s, 4]."""

from dataclasses import dataclass
from functools import partial

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.kernels.softmax_attention import attend
from st2v_jax.models.layers import Conv, GroupNorm, Linear


@dataclass(frozen=True)
class VaeConfig:
    """Widths of the autoencoder; every level but the last halves height and width.

    Attributes:
      block_channels: channels of the levels, full resolution first.
      layers_per_block: residual blocks of an encoder level (a decoder level has one more).
      groups: of every group norm; channels must be a multiple of it.
    """

    block_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    groups: int = 32
    norm_epsilon: float = 1e-6

    def __post_init__(self):
        for channels in self.block_channels:
            if channels % self.groups:
                raise ValueError(f'block_channels={self.block_channels} are not multiples of groups={self.groups}')

    @property
    def downsampling(self) -> int:
        """Pixels per latent along an axis."""
        return 2 ** (len(self.block_channels) - 1)


class Autoencoder(nnx.Module):
    """Images in [-1, 1] to latents and back, one frame at a time (the first stage of Video-LDM).

    Latents are not scaled here; the model that diffuses them multiplies by its own scale factor.
    """

    def __init__(self, config: VaeConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.downsampling = config.downsampling
        make = _Maker(config, dtype, rngs)
        self.encoder = Encoder(config, make)
        self.quant_conv = make.linear(2 * config.latent_channels, 2 * config.latent_channels)
        self.post_quant_conv = make.linear(config.latent_channels, config.latent_channels)
        self.decoder = Decoder(config, make)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance of the posterior, float32 [n, h, w, latent_channels] each, of images [n, H, W, 3]."""
        _, height, width, _ = images.shape
        if height % self.downsampling or width % self.downsampling:
            raise ValueError(
                f'images of {height}x{width} pixels: height and width must be multiples of {self.downsampling}'
            )
        moments = self.quant_conv(self.encoder(images)).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30, 20)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Float32 images [n, H, W, 3], not clipped, of latents [n, h, w, latent_channels]."""
        return self.decoder(self.post_quant_conv(latents)).astype(jnp.float32)


class Encoder(nnx.Module):
    """Images [n, H, W, 3] -> moments [n, h, w, 2 * latent_channels]."""

    def __init__(self, config: VaeConfig, make: '_Maker'):
        widths = config.block_channels
        self.conv_in = make.conv(3, widths[0], (3, 3))
        blocks = []
        for level, (before, channels) in enumerate(zip(widths[:1] + widths, widths, strict=False)):
            last = level == len(widths) - 1
            blocks.append(EncoderLevel(before, channels, config.layers_per_block, downsample=not last, make=make))
        self.down = nnx.List(blocks)
        self.mid = Middle(widths[-1], make)
        self.norm_out = make.norm(widths[-1])
        self.to_moments = make.conv(widths[-1], 2 * config.latent_channels, (3, 3))

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        return self.to_moments(self.norm_out(self.mid(x), silu=True))


class EncoderLevel(nnx.Module):
    """Residual blocks, then (except at the last level) a strided convolution."""

    def __init__(self, before: int, channels: int, layers: int, *, downsample: bool, make: '_Maker'):
        widths = [before] + [channels] * layers
        self.resnets = nnx.List([ResidualBlock(a, channels, make) for a in widths[:-1]])
        self.downsample = make.conv(channels, channels, (3, 3), strides=2, padding=0) if downsample else None

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.resnets:
            x = block(x)
        if self.downsample is None:
            return x
        # Only one row below and one column to the right: symmetric padding would shift every latent by half a pixel.
        return self.downsample(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))


class Decoder(nnx.Module):
    """Latents [n, h, w, latent_channels] -> images [n, H, W, 3]; `up` goes from the coarsest level to the finest."""

    def __init__(self, config: VaeConfig, make: '_Maker'):
        widths = config.block_channels[::-1]
        self.conv_in = make.conv(config.latent_channels, widths[0], (3, 3))
        self.mid = Middle(widths[0], make)
        blocks = []
        for level, (before, channels) in enumerate(zip(widths[:1] + widths, widths, strict=False)):
            last = level == len(widths) - 1
            blocks.append(DecoderLevel(before, channels, config.layers_per_block + 1, upsample=not last, make=make))
        self.up = nnx.List(blocks)
        self.norm_out = make.norm(widths[-1])
        self.to_image = make.conv(widths[-1], 3, (3, 3))

    def __call__(self, latents: jax.Array) -> jax.Array:
        x = self.mid(self.conv_in(latents))
        for level in self.up:
            x = level(x)
        return self.to_image(self.norm_out(x, silu=True))


class DecoderLevel(nnx.Module):
    """Residual blocks, then (except at full resolution) nearest-neighbour doubling and a convolution."""

    def __init__(self, before: int, channels: int, layers: int, *, upsample: bool, make: '_Maker'):
        widths = [before] + [channels] * layers
        self.resnets = nnx.List([ResidualBlock(a, channels, make) for a in widths[:-1]])
        self.upsample = make.conv(channels, channels, (3, 3)) if upsample else None

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.resnets:
            x = block(x)
        if self.upsample is None:
            return x
        return self.upsample(einops.repeat(x, 'n h w c -> n (h two_h) (w two_w) c', two_h=2, two_w=2))


class Middle(nnx.Module):
    """Residual block, self-attention over all pixels of a frame, residual block."""

    def __init__(self, channels: int, make: '_Maker'):
        self.resnets = nnx.List([ResidualBlock(channels, channels, make) for _ in range(2)])
        self.attention = PixelAttention(channels, make)

    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = self.resnets
        return second(self.attention(first(x)))


class ResidualBlock(nnx.Module):
    """Twice group norm, SiLU, 3x3 convolution; a linear map on the shortcut where the width changes."""

    def __init__(self, before: int, channels: int, make: '_Maker'):
        self.norm1 = make.norm(before)
        self.conv1 = make.conv(before, channels, (3, 3))
        self.norm2 = make.norm(channels)
        self.conv2 = make.conv(channels, channels, (3, 3))
        self.conv_shortcut = make.linear(before, channels) if before != channels else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(self.norm1(x, silu=True))
        y = self.conv2(self.norm2(y, silu=True))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class PixelAttention(nnx.Module):
    """Self-attention over the pixels of x [n, h, w, c], with a residual: one head of width c, with biases."""

    def __init__(self, channels: int, make: '_Maker'):
        self.norm = make.norm(channels)
        self.to_q, self.to_k, self.to_v, self.to_out = (make.linear(channels, channels) for _ in range(4))

    def __call__(self, x: jax.Array) -> jax.Array:
        _, height, _, _ = x.shape
        tokens = einops.rearrange(self.norm(x), 'n h w c -> n (h w) 1 c')
        y = attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + einops.rearrange(self.to_out(y), 'n (h w) 1 c -> n h w c', h=height)


class _Maker:
    """Makes the layers of one autoencoder, with its config and dtype filled in."""

    def __init__(self, config, dtype, rngs):
        self.conv = partial(Conv, padding=1, dtype=dtype, rngs=rngs)
        self.linear = partial(Linear, dtype=dtype, rngs=rngs)
        self.norm = partial(GroupNorm, groups=config.groups, epsilon=config.norm_epsilon, dtype=dtype)
