"""CLIP's two towers: the text tower encodes the prompt, the image tower the anchor frame."""

from dataclasses import dataclass
from functools import partial

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.kernels.softmax_attention import attend
from st2v_jax.models.layers import Conv, Embed, LayerNorm, Linear

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
ACTIVATIONS = {
    'gelu': partial(jax.nn.gelu, approximate=False),
    'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),
}


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text tower; the defaults are the streaming model's.

    Attributes:
      embed_dim: width of the space shared with images; None if the checkpoint has no projection.
    """

    vocab_size: int = 49408
    width: int = 1024
    layers: int = 23
    heads: int = 16
    mlp_width: int = 4096
    max_tokens: int = 77
    embed_dim: int | None = None
    activation: str = 'gelu'
    norm_epsilon: float = 1e-5

    def __post_init__(self):
        _check_transformer(self)


@dataclass(frozen=True)
class ImageConfig:
    """Sizes of the image tower; the defaults are ViT-H/14's."""

    image_size: int = 224
    patch: int = 14
    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_width: int = 5120
    embed_dim: int = 1024
    activation: str = 'gelu'
    norm_epsilon: float = 1e-5

    def __post_init__(self):
        _check_transformer(self)
        if self.image_size % self.patch:
            raise ValueError(f'image_size={self.image_size} is not a multiple of patch={self.patch}')

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return (self.image_size // self.patch) ** 2 + 1


class TextTower(nnx.Module):
    """Token ids to states: a causal transformer without a padding mask, then a layer norm.

    ids [b, t] int32 with t <= max_tokens -> states [b, t, width]. The denoiser reads the states of all tokens.
    """

    def __init__(self, config: TextConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.max_tokens, self.dtype = config.max_tokens, dtype
        self.tokens = Embed(config.vocab_size, config.width, rngs=rngs)
        self.positions = Embed(config.max_tokens, config.width, rngs=rngs)
        self.blocks = nnx.List([Block(config, causal=True, dtype=dtype, rngs=rngs) for _ in range(config.layers)])
        self.norm_out = _layer_norm(config, dtype, rngs)
        self.projection = (  # in one assignment, because nnx does not let a module replace None
            None
            if config.embed_dim is None
            else Linear(config.width, config.embed_dim, use_bias=False, dtype=dtype, rngs=rngs)
        )

    def __call__(self, ids: jax.Array) -> jax.Array:
        _, length = ids.shape
        if length > self.max_tokens:
            raise ValueError(f'{length} tokens do not fit a text tower of max_tokens={self.max_tokens}')
        x = (self.tokens(ids) + self.positions.embedding[:length]).astype(self.dtype)
        for block in self.blocks:
            x = block(x)
        return self.norm_out(x)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeddings [b, embed_dim] of ids [b, t]: the state at the end token, projected and not normalised.

        The end token is the one with the largest id, in CLIP's vocabulary as in a smaller one.
        """
        if self.projection is None:
            raise ValueError('a text tower with embed_dim=None has no projection to embed with')
        end = jnp.argmax(ids, axis=-1)
        return self.projection(self(ids)[jnp.arange(ids.shape[0]), end])


class ImageTower(nnx.Module):
    """Images to embeddings: a vision transformer, its class token after the last norm, projected.

    images [b, h, w, 3] from `preprocess` -> [b, embed_dim], not normalised.
    """

    def __init__(self, config: ImageConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        patch = (config.patch, config.patch)
        self.image_size, self.dtype = config.image_size, dtype
        self.patches = Conv(3, config.width, patch, strides=patch, padding=0, use_bias=False, dtype=dtype, rngs=rngs)
        self.class_token = Embed(1, config.width, rngs=rngs)
        self.positions = Embed(config.tokens, config.width, rngs=rngs)
        self.norm_in = _layer_norm(config, dtype, rngs)
        self.blocks = nnx.List([Block(config, causal=False, dtype=dtype, rngs=rngs) for _ in range(config.layers)])
        self.norm_out = _layer_norm(config, dtype, rngs)
        self.projection = Linear(config.width, config.embed_dim, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        b, height, width, _ = images.shape
        if (height, width) != (self.image_size, self.image_size):
            raise ValueError(f'images of {height}x{width} do not fit an image tower of image_size={self.image_size}')
        x = einops.rearrange(self.patches(images), 'b h w d -> b (h w) d')
        first = jnp.broadcast_to(self.class_token.embedding[...], (b, 1, x.shape[-1]))
        x = jnp.concatenate([first.astype(x.dtype), x], axis=1) + self.positions.embedding[...]
        x = self.norm_in(x.astype(self.dtype))
        for block in self.blocks:
            x = block(x)
        return self.projection(self.norm_out(x[:, 0]))


class Block(nnx.Module):
    """Attention and a two-layer perceptron on x [b, t, width], each after a layer norm and with a residual."""

    def __init__(self, config: TextConfig | ImageConfig, *, causal: bool, dtype: DTypeLike, rngs: nnx.Rngs):
        width, linear = config.width, partial(Linear, dtype=dtype, rngs=rngs)
        self.heads, self.causal, self.activation = config.heads, causal, config.activation
        self.norm1, self.norm2 = (_layer_norm(config, dtype, rngs) for _ in range(2))
        self.to_q, self.to_k, self.to_v, self.to_out = (linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = linear(width, config.mlp_width), linear(config.mlp_width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        split = partial(einops.rearrange, pattern='b t (n d) -> b t n d', n=self.heads)
        y = self.norm1(x)
        q, k, v = (split(to(y)) for to in (self.to_q, self.to_k, self.to_v))
        y = attend(q, k, v, causal=self.causal)
        x = x + self.to_out(einops.rearrange(y, 'b t n d -> b t (n d)'))
        return x + self.fc2(ACTIVATIONS[self.activation](self.fc1(self.norm2(x))))


def preprocess(images: jax.Array, size: int) -> jax.Array:
    """Images [b, h, w, 3] in [-1, 1] -> [b, size, size, 3] with the mean and deviation that the image tower expects.

    Resizes as the release does: a Gaussian blur if an axis shrinks, then bicubic interpolation with aligned corners.
    Both are linear along each axis, so each axis needs one small matrix, which is made in float64.
    """
    _, height, width, _ = images.shape
    if (height, width) != (size, size):
        shrinks = max(height, width) > size
        # Full precision on every device: products in bfloat16 would round 8-bit pixels.
        images = jnp.einsum(
            'bhwc,Hh,Ww->bHWc',
            images.astype(jnp.float32),
            _resize_matrix(height, size, shrinks),
            _resize_matrix(width, size, shrinks),
            precision='highest',
        )
    return ((images + 1) / 2 - np.float32(MEAN)) / np.float32(STD)


def _resize_matrix(before, after, blur):
    """[after, before]: bicubic interpolation (a = -0.75, aligned corners, clamped border) of the blurred axis."""
    position = np.linspace(0, before - 1, after)
    start = np.floor(position)
    matrix = np.zeros((after, before))
    for tap in range(-1, 3):
        source = np.clip(start + tap, 0, before - 1).astype(int)
        np.add.at(matrix, (np.arange(after), source), _cubic(np.abs(position - start - tap)))
    if blur:
        matrix = matrix @ _blur_matrix(before, sigma=max((before / after - 1) / 2, 0.001))
    return matrix.astype(np.float32)


def _cubic(distance, a=-0.75):
    """The cubic convolution kernel (Keys 1981) at distances in [0, 2]."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)


def _blur_matrix(size, sigma):
    """[size, size]: a Gaussian cut at two sigmas (taps odd, 3 at least), borders mirrored without repeat."""
    taps = int(max(2 * 2 * sigma, 3))
    taps += 1 - taps % 2
    offsets = np.arange(taps) - taps // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    index = np.abs(np.arange(size)[:, None] + offsets)
    index = np.where(index >= size, 2 * (size - 1) - index, index)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], index), np.broadcast_to(kernel / kernel.sum(), index.shape))
    return matrix


def _layer_norm(config, dtype, rngs):
    return LayerNorm(config.width, epsilon=config.norm_epsilon, use_fast_variance=False, dtype=dtype, rngs=rngs)


def _check_transformer(config):
    if config.width % config.heads:
        raise ValueError(f'width={config.width} is not a multiple of heads={config.heads}')
    if config.activation not in ACTIVATIONS:
        raise ValueError(f'activation={config.activation!r} is not one of {sorted(ACTIVATIONS)}')
