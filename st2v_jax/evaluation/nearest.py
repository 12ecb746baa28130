"""The training clip nearest to a generated one: does the model remember, or does it make?

Clips are compared as four of their frames, each averaged down to 16x16 pixels, by root mean square difference over all
pixels and channels in 0..255.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce

from st2v_jax.data import world
from st2v_jax.evaluation.checker import FRAMES

SIDE = 16
STRIDE = 4  # frames between the compared ones


def signature(clips):
    """clips [n, 16, h, w, 3] uint8 -> [n, features] float32; h and w are multiples of 16."""
    frames = np.asarray(clips)[:, ::STRIDE].astype(np.float32)
    h, w = frames.shape[2:4]
    if h % SIDE or w % SIDE:
        raise ValueError(f'frames are averaged down to {SIDE}x{SIDE}, which does not divide {h}x{w}')
    small = reduce(frames, 'n f (h p) (w q) c -> n f h w c', 'mean', h=SIDE, w=SIDE)
    return rearrange(small, 'n ... -> n (...)')


@jax.jit
def _training_signatures(seed, indices, starts):
    """Indices [k] -> [k, len(starts), features]; rendered at 64x64, which is enough for 16x16."""

    def one(index, start):
        frames = world.render(world.scene(seed, index), start + jnp.arange(0, FRAMES, STRIDE), 4 * SIDE)
        small = reduce((frames + 1) * 127.5, 'f (h p) (w q) c -> f h w c', 'mean', h=SIDE, w=SIDE)
        return small.reshape(-1)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(indices, starts)


def nearest(clips, seed, *, scenes, starts, batch=64):
    """The nearest of `scenes` training scenes, each beginning at any of `starts`, for each of clips [n, 16, h, w, 3].

    Returns {'index': [n], 'start': [n], 'distance': [n]}: scene number, first frame, root mean square difference.
    """
    asked = jnp.asarray(signature(clips))
    indices = world.split_indices('train', seed, 0, -(-scenes // batch) * batch)
    starts = np.array(starts, np.int32)

    @jax.jit
    def distances(asked, known):
        squares = (asked**2).sum(-1)[:, None] + (known**2).sum(-1) - 2 * jnp.matmul(asked, known.T, precision='highest')
        return jnp.sqrt(jnp.maximum(squares, 0) / asked.shape[-1])

    best = np.full(len(clips), np.inf)
    index, start = np.zeros(len(clips), int), np.zeros(len(clips), int)
    for begin in range(0, len(indices), batch):
        part = indices[begin : begin + batch]
        known = _training_signatures(seed, part, starts)
        found = np.asarray(distances(asked, rearrange(known, 'k s d -> (k s) d')))
        at = found.argmin(-1)
        closer = found.min(-1) < best
        best = np.where(closer, found.min(-1), best)
        index = np.where(closer, part[at // len(starts)], index)
        start = np.where(closer, starts[at % len(starts)], start)
    return {'index': index.tolist(), 'start': start.tolist(), 'distance': best.tolist()}
