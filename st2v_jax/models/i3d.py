"""I3D: a network that tells what happens in a video, whose scores are the features of FVD.

Carreira and Zisserman 2017 (arXiv:1705.07750), trained on Kinetics-400; Unterthiner et al. 2018 (arXiv:1812.01717).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.layers import Conv

SIZE, FRAMES = 224, 9  # pixels of a side; frames of a clip, at least
CLASSES = 400

# Widths of a block: branch 0; both convolutions of branches 1 and 2; branch 3. 'pool' is (window, strides).
LAYERS = (
    ('conv', '1a', 64, 7, 2),
    ('pool', (1, 3, 3), (1, 2, 2)),
    ('conv', '2b', 64, 1, 1),
    ('conv', '2c', 192, 3, 1),
    ('pool', (1, 3, 3), (1, 2, 2)),
    ('block', '3b', 64, (96, 128), (16, 32), 32),
    ('block', '3c', 128, (128, 192), (32, 96), 64),
    ('pool', (3, 3, 3), (2, 2, 2)),
    ('block', '4b', 192, (96, 208), (16, 48), 64),
    ('block', '4c', 160, (112, 224), (24, 64), 64),
    ('block', '4d', 128, (128, 256), (24, 64), 64),
    ('block', '4e', 112, (144, 288), (32, 64), 64),
    ('block', '4f', 256, (160, 320), (32, 128), 128),
    ('pool', (2, 2, 2), (2, 2, 2)),
    ('block', '5b', 256, (160, 320), (32, 128), 128),
    ('block', '5c', 384, (192, 384), (48, 128), 128),
)


class Unit(nnx.Module):
    """Convolution, scale and bias of each channel (batch normalisation with the statistics folded in), ReLU."""

    def __init__(self, width: int, new: int, kernel: int, stride: int = 1, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size = dict(kernel_size=(kernel,) * 3, strides=(stride,) * 3, padding='SAME')
        self.conv = Conv(width, new, **size, use_bias=False, dtype=dtype, rngs=rngs)
        self.scale, self.bias = nnx.Param(jnp.ones(new)), nnx.Param(jnp.zeros(new))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x)
        return jax.nn.relu(x * self.scale[...].astype(x.dtype) + self.bias[...].astype(x.dtype))


class Block(nnx.Module):
    """Four branches side by side: a point, two pairs of a point and a 3x3x3 convolution, and a pooled point."""

    def __init__(
        self,
        width: int,
        point: int,
        one: tuple[int, int],
        two: tuple[int, int],
        pooled: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        unit = lambda width, new, kernel: Unit(width, new, kernel, dtype=dtype, rngs=rngs)
        pair = lambda inner, new: nnx.List([unit(width, inner, 1), unit(inner, new, 3)])
        self.branches = nnx.List(
            [nnx.List([unit(width, point, 1)]), pair(*one), pair(*two), nnx.List([unit(width, pooled, 1)])]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        found = []
        for number, branch in enumerate(self.branches):
            y = nnx.max_pool(x, (3, 3, 3), (1, 1, 1), 'SAME') if number == 3 else x
            for unit in branch:
                y = unit(y)
            found.append(y)
        return jnp.concatenate(found, -1)


class I3d(nnx.Module):
    """Scores [b, 400] of the classes for clips [b, f, 224, 224, 3] in [-1, 1], f >= 9, before the softmax.

    They are averaged over the positions in time.
    """

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.layers, width = nnx.Dict(), 3
        for kind, name, *sizes in LAYERS:
            if kind == 'conv':
                self.layers[name] = Unit(width, *sizes, dtype=dtype, rngs=rngs)
                width = sizes[0]
            elif kind == 'block':
                self.layers[name] = Block(width, *sizes, dtype=dtype, rngs=rngs)
                point, one, two, pooled = sizes
                width = point + one[1] + two[1] + pooled
        self.classes = Conv(width, CLASSES, kernel_size=(1, 1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, clips: jax.Array) -> jax.Array:
        x = clips
        for kind, name, *sizes in LAYERS:
            x = nnx.max_pool(x, name, *sizes, 'SAME') if kind == 'pool' else self.layers[name](x)
        x = nnx.avg_pool(x, (2, SIZE // 32, SIZE // 32))
        return self.classes(x).mean((1, 2, 3)).astype(jnp.float32)
