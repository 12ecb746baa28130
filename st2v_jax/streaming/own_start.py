"""Videos that go on from given frames, or begin with a given picture: the states from which `stream` makes them.

given = read_start('clip.mp4', model.config.frame_size, fps=8, memory=model.config.memory)
for frames, state in stream(model, 'a red ball bounces', state=opening(model, given, seed=7)):
    ...
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax.models.system import encode_image, encode_latents
from st2v_jax.streaming.generate import Model, check_seeds
from st2v_jax.streaming.stream import StreamState, start, video_keys
from st2v_jax.video_io import to_floats
from st2v_jax.video_io.start import Start


def opening(model: Model, given: Start, *, seed: int = 0) -> StreamState:
    """The state before the first chunk of a video with this start; see `after_frames` and `with_picture`."""
    if given.is_picture:
        return with_picture(model, given.frames[0], seed=seed)
    return after_frames(model, given.frames, anchor=given.anchor, seed=seed)


def after_frames(
    model: Model, frames: np.ndarray, *, anchor: np.ndarray | None = None, seed: int | Sequence[int] = 0
) -> StreamState:
    """The state after given frames, whichever way they came about; its chunks and new frames are counted from 0.

    Args:
      model: with CAM.
      frames: uint8, or floats in [-1, 1], [n, H, W, 3], or [b, n, H, W, 3] for b videos, of the model's size; at
        least as many as the contract's memory, of which the last are remembered.
      anchor: [H, W, 3], or [b, H, W, 3], what the long-term memory keeps; None is the first frame.
      seed: of the noise, or a list of b.

    Raises:
      ValueError: for a model without CAM, for too few frames, and for those of another size than the model's.
    """
    if 'cam' not in model.params:
        raise ValueError('a model without CAM makes one chunk, and cannot go on from frames')
    frames = _batched(model, frames, 5)
    memory, count = model.config.contract.memory, frames.shape[1]
    if count < memory:
        raise ValueError(f'a video goes on from at least {memory} frames, not from {count}')
    anchor = frames[:, 0] if anchor is None else _batched(model, anchor, 4)
    keys = _keys(seed, len(frames), len(anchor))
    embedding = None
    if 'image' in model.params:
        embedding = _embedded(model.system, {'image': model.params['image']}, jnp.asarray(anchor))
    return StreamState(jnp.asarray(frames[:, -memory:]), embedding, keys, jnp.int32(0), given=jnp.int32(count))


def with_picture(model: Model, picture: np.ndarray, *, seed: int | Sequence[int] = 0) -> StreamState:
    """The state before a first chunk that begins with a picture [H, W, 3], or [b, H, W, 3] for b videos.

    No network was trained for that: `stream` holds frames to the picture while it denoises them. docs/sessions.md
    compares this with other ways. Raises ValueError for a picture of another size than the model's.
    """
    picture = _batched(model, picture, 4)
    begin = start(_keys(seed, len(picture)))
    return begin._replace(picture=_latents(model.system, {'vae': model.params['vae']}, jnp.asarray(picture)))


_embedded = jax.jit(encode_image, static_argnums=0)
_latents = jax.jit(encode_latents, static_argnums=0)


def _batched(model, frames, dimensions):
    """Frames as floats with a leading axis for videos, checked."""
    frames = np.asarray(frames)
    frames = to_floats(frames) if frames.dtype == np.uint8 else frames.astype(np.float32)
    frames = frames[None] if frames.ndim == dimensions - 1 else frames
    size = (*model.config.frame_size, 3)
    if frames.ndim != dimensions or frames.shape[-3:] != size:
        raise ValueError(f'the frames of this model are {size}, not of the shape {frames.shape}')
    return frames


def _keys(seed, *counts):
    seeds = [seed] * counts[0] if np.ndim(seed) == 0 else list(seed)
    check_seeds(seeds)
    if {*counts} != {len(seeds)}:
        raise ValueError(f'each of {counts[0]} videos has a seed and an anchor of its own')
    return video_keys(seeds)
