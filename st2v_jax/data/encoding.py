"""What clips may hold beside their frames: scaled latents and text embeddings, so that no step makes them again.

A fingerprint says which networks they are of: training takes no others.
"""

import dataclasses
import hashlib
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax import trees
from st2v_jax.data import clips
from st2v_jax.models import build
from st2v_jax.open_model import open_model
from st2v_jax.video_io import to_floats


class Encoder:
    """The autoencoder and the text tower of a model, for the records of clips: encoder(record) -> record.

    All frames of a clip are encoded at once, in float32, for this is done once and read in every epoch.
    """

    def __init__(self, model, params, tokenizer):
        self.fingerprint = fingerprint(model, params, tokenizer)
        self._tokenizer = tokenizer
        self._encode = partial(jax.jit(partial(_encode, model)), jax.device_put(params))

    def __call__(self, record):
        clip = clips.Clip(record)
        encoded = self._encode(clip.frames(range(len(clip))), self._tokenizer.ids([clip.caption]))
        return clips.with_encoding(record, *jax.device_get(encoded))


def load(folder, size) -> Encoder:
    """The Encoder of a folder that `open_model` takes; ValueError where its frames are not of this size."""
    model = open_model(folder)
    if model.config.frame_size != size:
        height, width = model.config.frame_size
        raise ValueError(
            f'latents are of frames as the model sees them: --size is {height}x{width} with --encode '
            f'{folder}, not {size[0]}x{size[1]}'
        )
    return Encoder(model.config, model.params(('vae', 'text')), model.tokenizer())


def _encode(model, params, frames, ids):
    """frames uint8 [n,H,W,3], ids [1,77] -> scaled latents [n,h,w,c], text embedding [77,c], both float16."""
    latents, _ = build.vae(model)(params['vae'], to_floats(frames), method='encode')
    return (latents * model.scale_factor).astype(jnp.float16), embed(model, params, ids)[0]


def embed(model, params, ids):
    """ids [b,77] -> text embeddings [b,77,c] as they are stored."""
    return build.text_tower(model)(params['text'], ids).astype(jnp.float16)


def fingerprint(model, params, tokenizer):
    """{'vae', 'text'}: digests of all that latents and text embeddings depend on.

    Weights count as they are saved, in float16, so that a published file and its conversion are the same.
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
