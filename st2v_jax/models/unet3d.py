"""The Video-LDM UNet: Stable Diffusion's UNet with a temporal layer after every spatial one.

Its encoder and middle block are a module of their own, because CAM's feature extractor is a copy of them.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.attention import Attention, KeysValues, SpatialTransformer, TemporalTransformer
from st2v_jax.models.layers import (
    Conv,
    Downsample,
    GroupNorm,
    ResidualBlock,
    TemporalConvBlock,
    TimeEmbedding,
    Upsample,
    per_branch,
)

POLICIES = ('nothing_saveable', 'dots_saveable', 'dots_with_no_batch_dims_saveable')


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Shape of a Video-LDM UNet; the defaults are ModelScope text-to-video 1.7B.

    Attributes:
      channels: width of each level, highest resolution first.
      attention: whether a level has transformers.
      blocks: residual blocks of a level on the way down; on the way up it has one more.
      head_size: width of an attention head.
      input_heads: heads of the temporal transformer after the first convolution.
      context_width: width of a text token.
      groups: channel groups of every group norm.
      in_channels, out_channels: of the latents.
      padding: (rows, columns) of the strided convolutions; the Refiner has (2, 1).
    """

    KIND: ClassVar[str] = 'unet'  # in a config's JSON, and the network's name among the parameters

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    blocks: int = 2
    head_size: int = 64
    input_heads: int = 8
    context_width: int = 1024
    groups: int = 32
    in_channels: int = 4
    out_channels: int = 4
    padding: tuple[int, int] = (1, 1)

    def __post_init__(self):
        if len(self.channels) != len(self.attention):
            raise ValueError(
                f'attention has one flag for each level: {len(self.channels)} levels, {len(self.attention)} flags'
            )

    @property
    def downsampling(self) -> int:
        """Latents per value of the lowest level along an axis."""
        return 2 ** (len(self.channels) - 1)

    @property
    def skips(self) -> tuple[int, ...]:
        """Widths of the skip connections in the order in which the encoder makes them."""
        widths = [self.channels[0]]
        for level, width in enumerate(self.channels):
            widths += [width] * (self.blocks + (level + 1 < len(self.channels)))
        return tuple(widths)


class UNetLevel(nnx.Module):
    """The layers of one resolution: rows of residual block, temporal convolution, spatial and temporal transformer.

    Args:
      config: of the UNet.
      widths: (in, out) channels of each residual block.
      attention: whether there are transformers.
    """

    def __init__(
        self, config: UNetConfig, widths: list[tuple[int, int]], attention: bool, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        out = widths[0][1]
        kind = dict(groups=config.groups, dtype=dtype)
        resnet = partial(ResidualBlock, time_width=4 * config.channels[0], rngs=rngs, **kind)
        self.resnets = nnx.List([resnet(*w) for w in widths])
        self.temp_convs = nnx.List([TemporalConvBlock(out, **kind) for _ in widths])
        self.attentions, self.temp_attentions = _transformers(config, out, len(widths) * attention, kind, rngs)

    def layers(self) -> Iterator[tuple[nnx.Module | None, ...]]:
        """Rows of (residual block, temporal convolution, spatial, temporal transformer); a transformer may be None."""
        none = [None] * len(self.resnets)
        return zip(self.resnets, self.temp_convs, self.attentions or none, self.temp_attentions or none, strict=True)


class UNetMiddle(nnx.Module):
    """Residual block, then transformers and a second residual block, at the lowest resolution."""

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width = config.channels[-1]
        kind = dict(groups=config.groups, dtype=dtype)
        resnet = partial(ResidualBlock, width, width, 4 * config.channels[0], rngs=rngs, **kind)
        self.resnets = nnx.List([resnet(), resnet()])
        self.temp_convs = nnx.List([TemporalConvBlock(width, **kind) for _ in range(2)])
        self.attentions, self.temp_attentions = _transformers(config, width, 1, kind, rngs)

    def __call__(self, x: jax.Array, time: jax.Array, keys_values: KeysValues) -> jax.Array:
        x = self.temp_convs[0](self.resnets[0](x, time))
        x = self.temp_attentions[0](self.attentions[0](x, keys_values))
        return self.temp_convs[1](self.resnets[1](x, time))


def _transformers(config, width, count, kind, rngs):
    spatial = partial(SpatialTransformer, width, context_width=config.context_width)
    temporal = partial(TemporalTransformer, width)
    return tuple(
        nnx.List([make(head_size=config.head_size, rngs=rngs, **kind) for _ in range(count)])
        for make in (spatial, temporal)
    )


def _run(layer, x, time, keys_values, remat):
    resnet, temp_conv, attention, temp_attention = layer

    def run(x, time, own):
        x = temp_conv(resnet(x, time))
        return x if attention is None else temp_attention(attention(x, own))

    return _rematerialised(run, remat)(x, time, None if attention is None else next(keys_values))


def _rematerialised(run, policy):
    """`run`, of whose values the backward pass reads those that the policy saves and computes the others again.

    policy: 'none' saves all; the others are the names in POLICIES, those of jax.checkpoint_policies.
    """
    if policy == 'none':
        return run
    if policy not in POLICIES:
        raise ValueError(f'remat={policy!r} is not one of none, {", ".join(POLICIES)}')
    return jax.checkpoint(run, policy=getattr(jax.checkpoint_policies, policy))


class UNetEncoder(nnx.Module):
    """First convolution, way down and middle block of the UNet, of which CAM's feature extractor is a copy."""

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        first, last = config.channels[0], len(config.channels) - 1
        self.dtype = dtype
        self.time_embedding = TimeEmbedding(first, dtype=dtype, rngs=rngs)
        self.conv_in = Conv(config.in_channels, first, (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.transformer_in = TemporalTransformer(
            first, head_size=config.head_size, heads=config.input_heads, groups=config.groups, dtype=dtype, rngs=rngs
        )
        ins = (first, *config.channels)
        self.down_blocks = nnx.List(
            UNetLevel(
                config,
                [(ins[i], out)] + [(out, out)] * (config.blocks - 1),
                config.attention[i],
                dtype=dtype,
                rngs=rngs,
            )
            for i, out in enumerate(config.channels)
        )
        self.downsamplers = nnx.List(
            Downsample(out, padding=config.padding, dtype=dtype, rngs=rngs) for out in config.channels[:last]
        )
        self.mid_block = UNetMiddle(config, dtype=dtype, rngs=rngs)

    def cross_attentions(self) -> list[Attention]:
        """Every cross-attention to the text, in the order of computation."""
        levels = [*self.down_blocks, self.mid_block]
        return [transformer.attn2 for level in levels for transformer in level.attentions]

    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        keys_values: list[KeysValues],
        *,
        concatenated: jax.Array | None = None,
        added: jax.Array | None = None,
        remat: str = 'none',
    ) -> tuple[list[jax.Array], jax.Array, jax.Array]:
        """Features of noisy latents at every skip connection and after the middle block.

        Args:
          x: [b, f, h, w, in_channels].
          t: [b] diffusion steps.
          keys_values: keys and values for each of `cross_attentions()`, perhaps of n guidance branches, [n * b, ...].
          concatenated: [b, f, h, w, c], what further input channels add to the first convolution (Conc-Cond), or None.
          added: [b, f, h, w, c], added after the first temporal transformer (CAM's conditioning frames), or None.
          remat: which values of a row of layers are kept for a gradient, see `_rematerialised`.

        Returns:
          skips (list of [b, f, h', w', c']), middle [b, f, h'', w'', c''], time embedding [b, 4 * c]. With n branches
          the skips from the first cross-attention on and the middle have n * b rows.
        """
        keys_values = iter(keys_values)
        time = self.time_embedding(t)
        x = self.conv_in(x.astype(self.dtype))
        if concatenated is not None:
            x = x + concatenated.astype(self.dtype)
        x = self.transformer_in(x)
        if added is not None:
            x = x + added.astype(self.dtype)
        skips = [x]
        for i, level in enumerate(self.down_blocks):
            for layer in level.layers():
                x = _run(layer, x, time, keys_values, remat)
                skips.append(x)
            if i < len(self.downsamplers):
                x = self.downsamplers[i](x)
                skips.append(x)
        return skips, _rematerialised(self.mid_block, remat)(x, time, next(keys_values)), time


class UNetDecoder(nnx.Module):
    """Way up of the UNet: every residual block reads a skip connection beside its own input."""

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        skips = list(config.skips)
        width = config.channels[-1]
        self.up_blocks = nnx.List()
        for out, attention in zip(reversed(config.channels), reversed(config.attention), strict=True):
            widths = []
            for _ in range(config.blocks + 1):
                widths.append((width + skips.pop(), out))
                width = out
            self.up_blocks.append(UNetLevel(config, widths, attention, dtype=dtype, rngs=rngs))
        self.upsamplers = nnx.List(
            Upsample(out, padding=config.padding, dtype=dtype, rngs=rngs) for out in config.channels[:0:-1]
        )
        self.conv_norm_out = GroupNorm(width, config.groups, epsilon=1e-5, dtype=dtype)
        self.conv_out = Conv(width, config.out_channels, (3, 3), padding=1, dtype=dtype, rngs=rngs)

    def cross_attentions(self) -> list[Attention]:
        """Every cross-attention to the text, in the order of computation."""
        return [transformer.attn2 for level in self.up_blocks for transformer in level.attentions]

    def __call__(
        self,
        x: jax.Array,
        skips: list[jax.Array],
        time: jax.Array,
        keys_values: list[KeysValues],
        *,
        remat: str = 'none',
    ) -> jax.Array:
        keys_values, skips = iter(keys_values), list(skips)
        for i, level in enumerate(self.up_blocks):
            for layer in level.layers():
                x = jnp.concatenate([x, per_branch(skips.pop(), len(x))], axis=-1)
                x = _run(layer, x, time, keys_values, remat)
            if i < len(self.upsamplers):
                x = self.upsamplers[i](x, skips[-1].shape[2:4])
        return self.conv_out(self.conv_norm_out(x, silu=True)).astype(jnp.float32)


class UNet3D(nnx.Module):
    """eps_theta(x_t, t, tau) of the Video-LDM; memory may be injected between encoder and decoder."""

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.encoder = UNetEncoder(config, dtype=dtype, rngs=rngs)
        self.decoder = UNetDecoder(config, dtype=dtype, rngs=rngs)

    def cross_attentions(self) -> list[Attention]:
        """Every cross-attention, encoder first, in the order of computation."""
        return self.encoder.cross_attentions() + self.decoder.cross_attentions()

    def keys_values(self, contexts: jax.Array | list[jax.Array]) -> list[KeysValues]:
        """Keys and values of every cross-attention, from contexts [b, 77, c]: one for all of them or a list."""
        attentions = self.cross_attentions()
        contexts = contexts if isinstance(contexts, list) else [contexts] * len(attentions)
        return [attention.keys_values(context) for attention, context in zip(attentions, contexts, strict=True)]

    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        keys_values: list[KeysValues],
        *,
        inject: Callable | None = None,
        concatenated: jax.Array | None = None,
        remat: str = 'none',
    ) -> jax.Array:
        """Float32 prediction [b, f, h, w, out_channels] for noisy latents.

        Args:
          x: [b, f, h, w, in_channels] noisy latents.
          t: [b] diffusion steps.
          keys_values: keys and values for each of `cross_attentions()`. If they are those of n guidance branches,
            [n * b, ...], then so is the prediction; x and t are the same for all branches.
          inject: a function (skips, middle) -> (skips, middle), CAM's feature injector; None leaves them as they are.
          concatenated: as for `UNetEncoder`.
          remat: which values of the layers are kept for a gradient; 'none' keeps all, see `_rematerialised`.
        """
        encoded = len(self.encoder.cross_attentions())
        skips, middle, time = self.encoder(x, t, keys_values[:encoded], concatenated=concatenated, remat=remat)
        if inject is not None:
            skips, middle = inject(skips, middle)
        return self.decoder(middle, skips, time, keys_values[encoded:], remat=remat)
