"""The attribute checker: a network that reads colour, shape, motion, pattern and size of the object in a short clip.

It is trained on ground-truth clips of the world, held-out combinations included, because it is the measuring instrument
and not what is measured. It is a plain function of a nested dict of arrays.

Colour and shape show in one frame, motion only in several. So the first convolution sees each frame together with its
difference to the frame before, and each resolution mixes each position over three neighbouring frames.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from st2v_jax import trees
from st2v_jax.data import world
from st2v_jax.evaluation import stored
from st2v_jax.storage.atomic import replacing

# Radii as shares of the side of a frame, in steps of 11 %. The world's own are 0.155 to 0.195; a model's may be others.
SIZES = tuple(round(0.09 * 1.11**step, 4) for step in range(12))
CLASSES = {
    'colour': world.COLOURS,
    'shape': world.SHAPES,
    'motion': world.MOTIONS,
    'pattern': world.PATTERNS,
    'size': SIZES,
}
FRAMES = 16  # frames of a clip
CHANNELS = (32, 64, 128, 192)


def init(key: jax.Array, heads: dict[str, int], channels: tuple[int, ...] = CHANNELS) -> dict[str, Any]:
    """Random parameters; heads is {'colour': number of classes, ...}."""
    keys = iter(jax.random.split(key, 3 * len(channels) + len(heads) + 1))

    def weights(*shape):
        fan_in = int(np.prod(shape[:-1]))
        return {'kernel': jax.random.normal(next(keys), shape) * (2 / fan_in) ** 0.5, 'bias': jnp.zeros(shape[-1])}

    params, width = {}, 6
    for i, c in enumerate(channels):
        size = 5 if i == 0 else 3
        params[f'stage_{i}'] = {
            'space': weights(size, size, width, c),
            'time': weights(3 * c, c),
            'scale': jnp.ones((2, c)),
        }
        width = c
    params['clip'] = weights(3 * 2 * width, 2 * width)
    params['heads'] = {name: weights(2 * 2 * width, n) for name, n in heads.items()}
    return params


def neighbours(x: jax.Array) -> jax.Array:
    """Joins the channels of each frame with those of the frames before and after: [b, f, ..., c] -> [b, f, ..., 3 c].

    The first and the last frame are repeated.
    """
    before = jnp.concatenate([x[:, :1], x[:, :-1]], 1)
    after = jnp.concatenate([x[:, 1:], x[:, -1:]], 1)
    return jnp.concatenate([before, x, after], -1)


def normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Root-mean-square normalisation over the channels of each position."""
    mean_square = jnp.mean(jnp.square(x.astype(jnp.float32)), -1, keepdims=True)
    return (x * jax.lax.rsqrt(mean_square + 1e-6)).astype(x.dtype) * scale.astype(x.dtype)


def logits(params: dict[str, Any], clips: jax.Array, dtype: jnp.dtype = jnp.float32) -> dict[str, jax.Array]:
    """Logits {head: [b, classes]} in float32 of clips [b, f, h, w, 3] in [-1, 1]."""
    b, f = clips.shape[:2]
    dense = lambda p, x: x @ p['kernel'].astype(x.dtype) + p['bias'].astype(x.dtype)
    clips = clips.astype(dtype)
    before = jnp.concatenate([clips[:, :1], clips[:, :-1]], 1)
    x = jnp.concatenate([clips, 4 * (clips - before)], -1)
    stages = [params[name] for name in sorted(params) if name.startswith('stage_')]
    for stage in stages:
        x = rearrange(x, 'b f h w c -> (b f) h w c')
        x = jax.lax.conv_general_dilated(
            x,
            stage['space']['kernel'].astype(dtype),
            (2, 2),
            'SAME',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        ) + stage['space']['bias'].astype(dtype)
        x = rearrange(x, '(b f) h w c -> b f h w c', b=b, f=f)
        x = jax.nn.silu(normed(x, stage['scale'][0]))
        x = x + jax.nn.silu(dense(stage['time'], neighbours(normed(x, stage['scale'][1]))))
    x = jnp.concatenate([x.mean((2, 3)), x.max((2, 3))], -1)
    x = jax.nn.silu(dense(params['clip'], neighbours(x)))
    x = jnp.concatenate([x.mean(1), x.max(1)], -1).astype(jnp.float32)
    return {name: dense(head, x) for name, head in params['heads'].items()}


@jax.jit
def _believe(params, clips):
    return jax.tree.map(jax.nn.softmax, logits(params, clips))


def posteriors(params: dict[str, Any], clips: np.ndarray, batch: int = 16) -> dict[str, np.ndarray]:
    """Probabilities {head: [b, classes]} of the classes, computed in batches."""
    parts = []
    for start in range(0, len(clips), batch):
        part = np.asarray(clips[start : start + batch])
        short = batch - len(part)
        part = np.concatenate([part, np.repeat(part[-1:], short, 0)]) if short else part  # one shape, one compilation
        parts.append(jax.tree.map(lambda x: np.asarray(x)[: batch - short], _believe(params, part)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def radii(believed: np.ndarray) -> np.ndarray:
    """Radii [b], as shares of the side of a frame, from the probabilities [b, sizes] of the head 'size'.

    This is the mean of SIZES in the logarithm, so it resolves less than a step.
    """
    return np.exp(believed @ np.log(SIZES))


def identity(
    one: dict[str, np.ndarray], other: dict[str, np.ndarray], heads: tuple[str, ...] = ('colour', 'shape', 'pattern')
) -> np.ndarray:
    """How alike the objects of two clips look, [b] in 0..1, from the posteriors {head: [b, classes]} of both.

    This is the mean over the heads of the Bhattacharyya coefficient sum(sqrt(p q)): 1 if the posteriors are equal, 0 if
    they exclude each other. Motion is left out, because an object may change its course.
    """
    overlaps = [np.sqrt(one[name] * other[name]).sum(-1) for name in heads if name in one]
    return np.mean(overlaps, 0)


def save(path: str | Path, params: dict[str, Any], about: dict[str, Any]) -> None:
    """Writes params, and a JSON dict about them (image size, classes, training), to one npz file."""
    leaves = {name: np.asarray(leaf) for name, leaf in trees.leaves(params)}
    with replacing(path) as file:
        np.savez(file, about=json.dumps(about), **leaves)


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads (params, about) from a file written by `save`. Raises BadInput for another file."""
    with stored.written(path, 'st2v evaluate train-checker'), open(path, 'rb') as stream, np.load(stream) as file:
        about = json.loads(str(file['about']))
        params = trees.unflatten({name: file[name] for name in file.files if name != 'about'})
        if 'size' not in about or not {'clip', 'heads'} <= params.keys():
            raise ValueError('it holds no checker')
        return params, about
