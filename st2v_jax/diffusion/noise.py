"""Noise of videos, frame by frame: how chunks that share frames come to share their noise."""

import jax


def frame_noise(key: jax.Array, draw, frames: jax.Array, shape) -> jax.Array:
    """Standard normal noise [b, f, *shape]: a pure function of (key, draw, absolute frame), however frames are grouped.

    Args:
      key: [b] typed keys, one for each video.
      draw: 0 is the initial noise, i + 1 the noise of step i.
      frames: [f] absolute frame numbers.
      shape: of one frame.
    """

    def one(key, frame):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, draw), frame), shape)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(key, frames)
