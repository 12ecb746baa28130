"""The networks of one model together, and how they encode a prompt, an anchor frame and remembered frames."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from st2v_jax.models import ablations, build
from st2v_jax.models.clip import preprocess


@dataclass(frozen=True, eq=False)
class System:
    """The networks of one model as pure functions (see models/build.py) and its config; made once, by `system`."""

    config: build.ModelConfig
    vae: Callable
    text: Callable
    image: Callable
    denoiser: Callable


def system(config: build.ModelConfig, dtype: DTypeLike = jnp.float32) -> System:
    """The System of a config, computing in `dtype`; equal calls return the same one, so nothing is compiled twice."""
    return _system(config, jnp.dtype(dtype))


@functools.cache
def _system(config, dtype):
    networks = (door(config, dtype) for door in (build.vae, build.text_tower, build.image_tower, build.denoiser))
    return System(config, *networks)


class Prompt(NamedTuple):
    """A prompt, encoded.

    Attributes:
      text: [b, n, d] states of the prompt's tokens.
      null_text: [b, n, d] those of the empty or the negative prompt.
      null_anchor: [b, e] embedding of an image without content; None without an image tower.
    """

    text: jax.Array
    null_text: jax.Array
    null_anchor: jax.Array | None


@functools.partial(jax.jit, static_argnums=0)
def encode_prompt(system: System, params: dict[str, Any], ids: jax.Array, null_ids: jax.Array) -> Prompt:
    """The Prompt of token ids [b, n]; null_ids [b, n] are those of the empty or the negative prompt.

    The null anchor is the embedding of an image without content (mid grey), not an embedding of zeros.
    """
    contract, null_anchor = system.config.contract, None
    if 'image' in params:
        empty = jnp.full((1, *contract.frame_size, 3), contract.null_anchor)
        null_anchor = encode_image(system, params, empty)
        null_anchor = jnp.broadcast_to(null_anchor, (len(ids), *null_anchor.shape[1:]))
    text = system.text(params['text'], jnp.concatenate([ids, null_ids]))
    return Prompt(*jnp.split(text, 2), null_anchor)


@jax.jit
def between(text: jax.Array, following: jax.Array, share: jax.Array) -> jax.Array:
    """Text states [b, n, d] on the straight line from `text` to `following`, at share [b] of the way."""
    share = share[:, None, None]
    mixed = (1 - share) * text.astype(jnp.float32) + share * following.astype(jnp.float32)
    return mixed.astype(text.dtype)


def encode_image(system: System, params: dict[str, Any], frames: jax.Array) -> jax.Array:
    """CLIP embeddings [b, e] of frames [b, H, W, 3] in [-1, 1] of any size."""
    return system.image(params['image'], preprocess(frames, system.config.image.image_size))


def encode_latents(system: System, params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Latents [b, h, w, c] of images [b, H, W, 3] in [-1, 1]: means of the autoencoder in the denoiser's scale."""
    mean, _ = system.vae(params['vae'], images, method='encode')
    return mean * system.config.scale_factor


def remembered(system: System, params: dict[str, Any], frames: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """What the model's short-term memory receives of frames [b, m, H, W, 3] and mask [b, m], see `ablations`."""
    config = system.config

    def encode(frames):
        latents = encode_latents(system, params, rearrange(frames, 'b m ... -> (b m) ...'))
        return rearrange(latents, '(b m) ... -> b m ...', b=len(frames))

    length = config.contract.later_frames
    return ablations.remembered(config.cam.fusion, frames, length=length, encode=encode, mask=mask)
