"""Noise of videos, frame by frame, so that chunks that share frames can share their noise."""

import jax


def frame_noise(key: jax.Array, noise_index: int | jax.Array, frames: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise [b, f, *shape].

    The noise of a frame is a pure function of (key, noise_index, absolute frame), however frames are grouped.

    Args:
      key: [b] typed keys, one for each video.
      noise_index: 0 is the initial noise, i + 1 the noise of step i.
      frames: [f] absolute frame numbers.
      shape: of one frame.
    """

    def one(key, frame):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, noise_index), frame), shape)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(key, frames)
