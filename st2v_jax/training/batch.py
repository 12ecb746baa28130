"""What the denoising objective trains on, and the rules for it that pools of the small world and real clips share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from einops import rearrange


class Batch(NamedTuple):
    """The examples of a step, encoded.

    Attributes:
      latents: [b, f, h, w, c] float32, scaled.
      ids: [b, 77] token ids.
      frames: [b, m, H, W, 3] the conditioning frames in [-1, 1]; None without memory.
      anchor: [b, e] image embedding of the anchor frame; None without anchor.
      mask: [b, m] which of the frames are given; None is all of them.
      text: [b, 77, c] text embeddings, which replace the ids; None where the text tower runs.
    """

    latents: jax.Array
    ids: jax.Array
    frames: jax.Array | None = None
    anchor: jax.Array | None = None
    mask: jax.Array | None = None
    text: jax.Array | None = None


class Data(NamedTuple):
    """What batches are drawn from, and the conditions that mean no condition.

    Attributes:
      videos: `pools.Videos`, or `clips.Clips`, the batch of one step.
      empty_ids: [77] the tokens of the empty text.
      empty_anchor: the grey picture, [e] embedded, or with clips [H, W, 3]; None without anchor.
      empty_text: [77, c] the embedding of the empty text where the videos have embeddings.
    """

    videos: Any
    empty_ids: jax.Array
    empty_anchor: jax.Array | None = None
    empty_text: jax.Array | None = None


def window(length: int, frames: int, below: Callable, *, anchored: bool):
    """Which frames of a sample of `length` frames are used: (first frame to denoise, anchor frame).

    The conditioning frames are the first ones of those to denoise. With an anchor, a sample is two chunks long: the
    anchor is a random frame of the first chunk (1-16 of 32), the second chunk (17-32) is denoised.

    below: count -> a random integer in 0..count-1; asked for the start, and then for the anchor.
    """
    needed = 2 * frames if anchored else frames
    if length < needed:
        raise ValueError(f'samples of {length} frames are too short: this stage needs {needed}')
    start = below(length - needed + 1)
    if not anchored:
        return start, start
    return start + frames, start + below(frames)


def corrupted(noise: float, key: jax.Array, latents: jax.Array) -> jax.Array:
    """Latents [t, h, w, c] of a video with noise of one level for all frames, drawn from U(0, noise).

    While sampling, conditioning frames are the model's own; a CAM that has only seen flawless ones lets errors grow.
    """
    level_key, noise_key = jax.random.split(jax.random.fold_in(key, 1))
    level = jax.random.uniform(level_key, (), maxval=noise)
    return latents + level * jax.random.normal(noise_key, latents.shape)


def each_frame(function: Callable, videos: jax.Array):
    """What a function of images [n, ...] makes of every frame of videos [b, t, ...]: a tree of arrays [b, t, ...]."""
    made = function(rearrange(videos, 'b t ... -> (b t) ...'))
    return jax.tree.map(lambda leaf: rearrange(leaf, '(b t) ... -> b t ...', b=len(videos)), made)
