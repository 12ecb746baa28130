"""Finds the training clip nearest to a generated one, to see whether the model only repeats its training clips.

Of each clip, four frames are averaged down to 16x16 pixels. Clips are compared by the root mean square difference of
these over all pixels and channels in 0..255.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce

from st2v_jax.data import world
from st2v_jax.evaluation.checker import FRAMES

SIDE = 16
STRIDE = 4  # every fourth frame is compared


def signature(clips: np.ndarray) -> np.ndarray:
    """Features float32 [n, features] of clips uint8 [n, 16, h, w, 3]; h and w are multiples of 16."""
    frames = np.asarray(clips)[:, ::STRIDE].astype(np.float32)
    h, w = frames.shape[2:4]
    if h % SIDE or w % SIDE:
        raise ValueError(f'frames are averaged down to {SIDE}x{SIDE} pixels, which is not possible for {h}x{w}')
    small = reduce(frames, 'n f (h p) (w q) c -> n f h w c', 'mean', h=SIDE, w=SIDE)
    return rearrange(small, 'n ... -> n (...)')


@jax.jit
def _training_signatures(seed, indices, starts):
    """Features [k, len(starts), features] of the scenes with indices [k], rendered at 64x64."""

    def one(index, start):
        frames = world.render(world.scene(seed, index), start + jnp.arange(0, FRAMES, STRIDE), 4 * SIDE)
        small = reduce((frames + 1) * 127.5, 'f (h p) (w q) c -> f h w c', 'mean', h=SIDE, w=SIDE)
        return small.reshape(-1)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(indices, starts)


def nearest(
    clips: np.ndarray, seed: int, *, scenes: int, starts: Sequence[int], batch: int = 64
) -> dict[str, list[float]]:
    """Finds the nearest training clip for each of clips uint8 [n, 16, h, w, 3].

    Args:
      clips: to look for.
      seed: of the world in the training.
      scenes: number of training scenes.
      starts: first frames of the training clips of each scene.
      batch: scenes rendered at once.

    Returns:
      'index' [n] of the scene, its first frame 'start' [n], and 'distance' [n], the root mean square difference.
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
