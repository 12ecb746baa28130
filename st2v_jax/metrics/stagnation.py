"""Stagnation: does a video stand still, and for how long?"""

import numpy as np

from st2v_jax.video_io import to_uint8

BLOCK = 8  # pixels
STILL = 3.0  # grey values of 0..255; the noise of encoded video stays below, also in the mean of one block


def block_changes(frames: np.ndarray) -> np.ndarray:
    """Change [f - 1] between consecutive frames [f, h, w, 3] in the block of 8x8 pixels that changes most.

    It is the largest difference of block means over blocks and channels, in grey values of 0..255. A small object that
    moves changes its blocks although the mean over the picture hardly changes; noise averages out.
    """
    means = [_means(_means(to_uint8(frame)).swapaxes(0, 1)) for frame in frames]
    return np.array([np.abs(b - a).max() for a, b in zip(means[:-1], means[1:])], np.float64)


def _means(values):
    """The means [blocks, ...] of equal blocks of values [n, ...], each at most 8 long; they may end within a value."""
    n = len(values)
    edges = np.linspace(0, n, -(-n // BLOCK) + 1)
    whole = np.minimum(edges.astype(int), n - 1)
    sums = np.cumsum(values, 0, np.float64) - values  # of all before a value
    rest = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    return np.diff(sums[whole] + rest * values[whole], axis=0) / (n / (len(edges) - 1))


def stagnation(changes: np.ndarray, still: float = STILL) -> dict[str, float | int]:
    """How much of a video repeats the frame before.

    Args:
      changes: [f - 1] between consecutive frames, see `block_changes`; f is at least 2.
      still: below this, a frame repeats the one before.

    Returns:
      'share' of the changes that are still, 0..1, lower is better; 'longest', how many still changes follow each other
      at most; 'start', the frame where that longest run begins, counted from 0, or -1 without one.
    """
    quiet = np.asarray(changes) < still
    if not len(quiet):
        raise ValueError('stagnation needs at least two frames, got one')
    edges = np.diff(np.concatenate([[False], quiet, [False]]).astype(int))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        return {'share': 0.0, 'longest': 0, 'start': -1}
    k = int(np.argmax(ends - starts))
    return {'share': float(quiet.mean()), 'longest': int(ends[k] - starts[k]), 'start': int(starts[k])}
