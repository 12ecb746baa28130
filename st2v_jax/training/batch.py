"""The batches of the denoising objective, and what pools of the small world and real clips share in making them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from einops import rearrange


class Batch(NamedTuple):
    """The examples of a step, encoded.

    Attributes:
      latents: [b, f, h, w, c] float32, scaled.
      ids: [b, 77] token ids.
      frames: [b, m, H, W, 3], the conditioning frames in [-1, 1]; None without memory.
      anchor: [b, e], the image embedding of the anchor frame; None without anchor.
      mask: [b, m], which of the frames are given; None means all.
      text: [b, 77, c] text embeddings, used instead of the ids; None if the text tower runs in the step.
    """

    latents: jax.Array
    ids: jax.Array
    frames: jax.Array | None = None
    anchor: jax.Array | None = None
    mask: jax.Array | None = None
    text: jax.Array | None = None


class Data(NamedTuple):
    """What batches are drawn from, and the empty conditions.

    Attributes:
      videos: `pools.Videos`, or `clips.Clips` with the batch of one step.
      empty_ids: [77], the tokens of the empty text.
      empty_anchor: a grey image, embedded [e], or with clips as pixels [H, W, 3]; None without anchor.
      empty_text: [77, c], the embedding of the empty text if the videos hold text embeddings, else None.
    """

    videos: Any
    empty_ids: jax.Array
    empty_anchor: jax.Array | None = None
    empty_text: jax.Array | None = None


def window(length: int, frames: int, below: Callable, *, anchored: bool) -> tuple:
    """Chooses which frames of a clip are used.

    The first of the frames to denoise are also the conditioning frames. With an anchor, the window has two chunks: the
    anchor is a random frame of the first one (frames 1-16 of 32), and the second one (frames 17-32) is denoised.

    Args:
      length: frames of the clip.
      frames: frames of a chunk.
      below: count -> random integer in 0..count-1; called for the start and then for the anchor.
      anchored: whether there is an anchor frame.

    Returns:
      Index of the first frame to denoise, and index of the anchor frame.

    Raises ValueError if the clip is too short.
    """
    needed = 2 * frames if anchored else frames
    if length < needed:
        raise ValueError(f'clips of {length} frames are too short: this stage needs {needed}')
    start = below(length - needed + 1)
    if not anchored:
        return start, start
    return start + frames, start + below(frames)


def corrupted(noise: float, key: jax.Array, latents: jax.Array) -> jax.Array:
    """Adds noise to the latents [t, h, w, c] of a video, with one level for all frames, drawn from U(0, noise).

    During sampling, CAM sees frames that the model made itself. If it has only seen perfect frames, errors grow.
    """
    level_key, noise_key = jax.random.split(jax.random.fold_in(key, 1))
    level = jax.random.uniform(level_key, (), maxval=noise)
    return latents + level * jax.random.normal(noise_key, latents.shape)


def each_frame(function: Callable, videos: jax.Array) -> Any:
    """Applies a function of images [n, ...] to each frame of videos [b, t, ...]; returns arrays [b, t, ...]."""
    made = function(rearrange(videos, 'b t ... -> (b t) ...'))
    return jax.tree.map(lambda leaf: rearrange(leaf, '(b t) ... -> b t ...', b=len(videos)), made)
