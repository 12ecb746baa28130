"""LPIPS: how different two images look (Zhang et al. 2018, arXiv:1801.03924), version 0.1."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.layers import Conv

MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]

# Convolutions as (width, kernel, stride, padding), 'pool' between them; features are taken after the listed ones.
ALEX = ((64, 11, 4, 2), 'pool', (192, 5, 1, 2), 'pool', (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
VGG = tuple(
    layer
    for level, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)))
    for layer in (*['pool'] * (level > 0), *[(width, 3, 1, 1)] * count)
)
TRUNKS = {'alex': (ALEX, (0, 1, 2, 3, 4), 3), 'vgg': (VGG, (1, 3, 6, 9, 12), 2)}  # with the size of the pooling window


class Lpips(nnx.Module):
    """Distance [b] of images [b, h, w, 3] in [-1, 1], from 0 for equal ones on; below about 1 in practice.

    Features of a network for classification are scaled to unit length at each pixel; their squared differences are
    weighted by channel, averaged over the picture and added up over five layers.

    Args:
      trunk: 'alex', which the authors advise, or 'vgg'.
    """

    def __init__(self, trunk: str, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        if trunk not in TRUNKS:
            raise ValueError(f"the trunk of LPIPS is 'alex' or 'vgg', not {trunk!r}")
        self.layers, self.taken, self.pool = TRUNKS[trunk]
        self.convs, self.weights, width = nnx.List(), nnx.List(), 3
        for layer in self.layers:
            if layer != 'pool':
                new, kernel, stride, padding = layer
                size = dict(kernel_size=(kernel, kernel), strides=stride, padding=padding)
                self.convs.append(Conv(width, new, **size, dtype=dtype, rngs=rngs))
                if len(self.convs) - 1 in self.taken:
                    self.weights.append(nnx.Param(jnp.zeros(new)))
                width = new

    def __call__(self, first: jax.Array, second: jax.Array) -> jax.Array:
        distance = 0.0
        for weight, a, b in zip(self.weights, self._features(first), self._features(second)):
            squares = jnp.square(_unit(a) - _unit(b)) @ weight[...]
            distance += squares.mean((-2, -1))
        return distance

    def _features(self, x):
        x, convs = (x - jnp.array(MEAN)) / jnp.array(STD), iter(self.convs)
        taken, number = [], -1
        for layer in self.layers:
            if layer == 'pool':
                x = nnx.max_pool(x, (self.pool, self.pool), (2, 2))
                continue
            x, number = jax.nn.relu(next(convs)(x)), number + 1
            if number in self.taken:
                taken.append(x)
        return taken


def _unit(x):
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10)
