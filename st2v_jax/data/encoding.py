"""Clips can also hold scaled latents and text embeddings, so that training steps need not compute them.

A fingerprint identifies the networks that made them; training accepts only those of its own networks.
"""

import dataclasses
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax import trees
from st2v_jax.data import clips
from st2v_jax.models import build
from st2v_jax.open_model import open_model
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.video_io import to_floats


class Encoder:
    """Adds latents and text embeddings to the records of clips: encoder(record) -> record.

    All frames of a clip are encoded together, in float32: this is done once and read in every epoch.
    """

    def __init__(self, model, params, tokenizer):
        self.fingerprint = fingerprint(model, params, tokenizer)
        self._tokenizer = tokenizer
        self._encode = partial(jax.jit(partial(_encode, model)), jax.device_put(params))

    def __call__(self, record):
        clip = clips.Clip(record)
        encoded = self._encode(clip.frames(range(len(clip))), self._tokenizer.ids([clip.caption]))
        return clips.with_encoding(record, *jax.device_get(encoded))


def load(folder: str | Path, size: tuple[int, int]) -> Encoder:
    """The Encoder with the networks of a model.

    Args:
      folder: weights, as `open_model` takes them.
      size: (height, width) of the clips; ValueError if the model has another one.
    """
    model = open_model(folder)
    if model.config.frame_size != size:
        height, width = model.config.frame_size
        raise ValueError(
            f'with --encode {folder}, --size must be that of the model, {height}x{width}, not {size[0]}x{size[1]}'
        )
    return Encoder(model.config, model.params(('vae', 'text')), model.tokenizer())


def _encode(model, params, frames, ids):
    """Latents [n, h, w, c] of frames uint8 [n, H, W, 3], scaled, and the embedding [77, c] of ids [1, 77]; float16."""
    latents, _ = build.vae(model)(params['vae'], to_floats(frames), method='encode')
    return (latents * model.scale_factor).astype(jnp.float16), embed(model, params, ids)[0]


def embed(model: build.ModelConfig, params: dict[str, Any], ids: jax.Array) -> jax.Array:
    """Text embeddings [b, 77, c] of ids [b, 77], as they are stored."""
    return build.text_tower(model)(params['text'], ids).astype(jnp.float16)


def fingerprint(model: build.ModelConfig, params: dict[str, Any], tokenizer: Tokenizer) -> dict[str, str]:
    """Digests of everything that the latents ('vae') and the text embeddings ('text') depend on.

    Weights are taken in float16, as they are saved, so that a published file and its conversion have the same digest.
    """
    return {
        'vae': _digest(params['vae'], dataclasses.asdict(model.vae) | {'scale_factor': model.scale_factor}),
        'text': _digest(params['text'], dataclasses.asdict(model.text) | tokenizer.to_dict()),
    }


def _digest(params, about):
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path, array in sorted(trees.leaves(params)):
        with np.errstate(over='ignore'):
            digest.update(path.encode() + np.asarray(array).astype('<f2').tobytes())
    return digest.hexdigest()[:16]
