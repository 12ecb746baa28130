"""CAM, the conditional attention module: short-term memory of the previous chunk's last frames (section 4.1).

E_cond encodes the conditioning frames, the feature extractor (a copy of the UNet's encoder) turns them and the noisy
latents into features, and an injector at every skip connection lets the UNet attend to them over time.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.ablations import ADDITION, ATTENTION, FUSIONS, FeatureAdder
from st2v_jax.models.attention import Attention, KeysValues
from st2v_jax.models.layers import VIDEO, Conv, GroupNorm, LayerNorm, Linear, per_branch, sinusoidal
from st2v_jax.models.unet3d import UNetConfig, UNetEncoder

CODE_WIDTH = 32  # of the sinusoids that the codes of frames are made of

Features = tuple[list[jax.Array], jax.Array]  # (one at every skip connection, after the middle block)


@dataclasses.dataclass(frozen=True)
class CamConfig:
    """Shape of CAM; the defaults are the released ones.

    Attributes:
      conditioning_channels: widths of E_cond; each after the first halves the resolution.
      head_size: width of the injectors' attention heads.
      layer_norm: layer norms in E_cond (paper: yes, release: no).
      inject_middle: an injector at the middle block too (paper: no, release: yes).
      fusion: how the memory joins the UNet. 'attention' is CAM, 'addition' and 'concatenation' are the ablations
        Add-Cond and Conc-Cond (models/ablations.py).
      positions: codes of the frames in queries and keys of the injectors (paper and release: no). Without them, a query
        finds its place in time by its content alone, and that of noise says nothing.
    """

    LATER: ClassVar = ('positions',)

    conditioning_channels: tuple[int, ...] = (32, 96, 256, 512)
    head_size: int = 64
    layer_norm: bool = False
    inject_middle: bool = True
    fusion: str = ATTENTION
    positions: bool = False

    def __post_init__(self):
        if self.fusion not in FUSIONS:
            raise ValueError(f'fusion is one of {FUSIONS}, not {self.fusion!r}')


class ConditioningEncoder(nnx.Module):
    """E_cond: conditioning frames [b, m, H, W, 3] in [-1, 1] -> [b, m, h, w, c]; its last layer starts at 0.

    In Add-Cond the mask of given frames is a fourth channel.
    """

    def __init__(self, config: CamConfig, out_channels: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        conv = partial(Conv, kernel_size=(3, 3), padding=1, dtype=dtype, rngs=rngs)
        widths = config.conditioning_channels
        self.conv_in = conv(4 if config.fusion == ADDITION else 3, widths[0])
        self.blocks = nnx.List()
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            self.blocks += [conv(i, i), conv(i, o, strides=2)]
        norms = [block.out_features for block in (self.conv_in, *self.blocks)] if config.layer_norm else []
        self.norms = nnx.List(LayerNorm(width, dtype=dtype, rngs=rngs) for width in norms)
        self.conv_out = conv(widths[-1], out_channels)

    def __call__(self, frames: jax.Array) -> jax.Array:
        y = frames
        for i, conv in enumerate((self.conv_in, *self.blocks)):
            y = conv(y)
            y = nnx.silu(self.norms[i](y) if self.norms else y)
        return self.conv_out(y)


class FeatureInjector(nnx.Module):
    """Each pixel of a skip feature attends, over time, to the features of the conditioning frames (eq. 4, 5).

    Queries come from x [b, f, h, w, c], keys and values from memory [b, m, h, w, c]; returns [b, f, h, w, c].
    proj_out starts at zero, so an untrained memory leaves the base model as it was. With `positions`, codes of the
    frames, which start at zero too, are added to both.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_size: int,
        groups: int,
        positions: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if channels % head_size:
            raise ValueError(f'channels={channels} is not a multiple of head_size={head_size}')
        linear = partial(Linear, channels, channels, dtype=dtype, rngs=rngs)
        self.norm = GroupNorm(channels, groups, epsilon=1e-6, axes=VIDEO, dtype=dtype)
        self.proj_in = linear()
        self.attention = Attention(channels, head_size=head_size, dtype=dtype, rngs=rngs)
        self.proj_out = linear()
        self.positions = positions
        if positions:
            code = partial(Linear, CODE_WIDTH, channels, use_bias=False, dtype=dtype, rngs=rngs)
            self.query_code, self.key_code = code(), code()

    def __call__(self, x: jax.Array, memory: jax.Array) -> jax.Array:
        b, _, h, w, _ = x.shape
        rows = partial(einops.rearrange, pattern='b t h w c -> (b h w) t c')
        queries, keys = rows(self.proj_in(self.norm(x))), rows(memory)
        if self.positions:
            of = lambda code, tokens: tokens + code(sinusoidal(jnp.arange(tokens.shape[1]), CODE_WIDTH))
            queries, keys = of(self.query_code, queries), of(self.key_code, keys)
        y = self.attention(queries, self.attention.keys_values(keys))
        return x + self.proj_out(einops.rearrange(y, '(b h w) t c -> b t h w c', b=b, h=h, w=w))


class Cam(nnx.Module):
    """Conditioning encoder, feature extractor and injectors; Add-Cond has adders instead of injectors."""

    def __init__(self, config: CamConfig, unet: UNetConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        injector = partial(FeatureInjector, head_size=config.head_size, groups=unet.groups, positions=config.positions)
        injector = partial(FeatureAdder if config.fusion == ADDITION else injector, dtype=dtype, rngs=rngs)
        self.encoder = ConditioningEncoder(config, unet.channels[0], dtype=dtype, rngs=rngs)
        self.extractor = UNetEncoder(unet, dtype=dtype, rngs=rngs)
        self.injectors = nnx.List(injector(width) for width in unet.skips)
        if config.inject_middle:
            self.middle_injector = injector(unet.channels[-1])
        self.inject_middle = config.inject_middle

    def encode(self, frames: jax.Array) -> jax.Array:
        """E_cond: conditioning frames [b, m, H, W, 3] in [-1, 1] -> [b, m, h, w, c]."""
        return self.encoder(frames)

    def keys_values(self, text: jax.Array) -> list[KeysValues]:
        """Keys and values of the extractor's cross-attentions, which see only the text [b, 77, c]."""
        return [attention.keys_values(text) for attention in self.extractor.cross_attentions()]

    def extract(
        self, x: jax.Array, t: jax.Array, keys_values: list[KeysValues], conditioning: jax.Array, *, remat: str = 'none'
    ) -> Features:
        """Features (skips, middle) of the m conditioning frames.

        Args:
          x: [b, f, h, w, 4] noisy latents of the chunk, of which the first m are used (Add-Cond: m = f).
          t: [b] diffusion steps.
          keys_values: those of the text, from `keys_values`, perhaps of several guidance branches as in `UNetEncoder`.
          conditioning: [b, m, h, w, c] from `encode`.
          remat: as in `UNet3D`.
        """
        skips, middle, _ = self.extractor(
            x[:, : conditioning.shape[1]], t, keys_values, added=conditioning, remat=remat
        )
        return skips, middle

    def joins(self, memory: Features) -> dict[str, Callable]:
        """The keyword arguments that bring memory = (skips, middle) into `UNet3D`."""
        return {'inject': partial(self.inject, memory=memory)}

    def inject(self, skips: list[jax.Array], middle: jax.Array, memory: Features) -> Features:
        """Skip features and middle feature of the UNet after attending to memory = (skips, middle).

        Memory may be that of the first guidance branches; the others share that of the last of these.
        """
        of = partial(per_branch, videos=len(skips[0]))  # no text has reached the first skip, so it has a row a video
        skips = [injector(x, of(m, len(x))) for injector, x, m in zip(self.injectors, skips, memory[0], strict=True)]
        return skips, self.middle_injector(middle, of(memory[1], len(middle))) if self.inject_middle else middle
