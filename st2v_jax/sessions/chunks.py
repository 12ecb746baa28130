"""Chunks on disk: one file each, named by its id, the hash of all that its frames are determined by.

The id of a chunk contains that of the chunk before it, so an id stands for the whole video up to its end. A file is
written under a name of its own and then renamed; it holds a checksum, so what a full disk or a power cut did to it is
noticed.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.errors import SessionError
from st2v_jax.sessions.fingerprint import digest
from st2v_jax.storage import safetensors
from st2v_jax.storage.untrusted import UnsafeCheckpointError
from st2v_jax.video_io import to_uint8

NAME = re.compile(r'[0-9a-f]{64}\.safetensors')


class Damaged(SessionError):
    """A chunk whose file is not what was written, or is missing."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A chunk that was read.

    Attributes:
      latents: [1, f, h, w, c] of its new frames.
      anchor: [1, e] embedding of the anchor frame; None for a model without long-term memory.
      inputs: what its id is the hash of.
      notes: 'frames', the SHA-256 of its uint8 frames, 'programs', see `fingerprint.of_programs`, and what it was asked
        for in words: 'prompt', 'seed' and the like.
    """

    latents: np.ndarray
    anchor: np.ndarray | None
    inputs: dict[str, Any]
    notes: dict[str, Any]


def path_of(folder: Path, id: str) -> Path:
    """The file of a chunk."""
    return folder / f'{id}.safetensors'


def frames_hash(frames: np.ndarray) -> str:
    """The SHA-256 of frames as files hold them, uint8 [n, H, W, 3]."""
    return hashlib.sha256(np.ascontiguousarray(to_uint8(frames)).data).hexdigest()


def write(
    folder: Path, inputs: Mapping[str, Any], latents: np.ndarray, anchor: np.ndarray | None, notes: Mapping[str, Any]
) -> str:
    """Writes a chunk whole or not at all, and returns its id."""
    arrays = {'latents': latents} | ({} if anchor is None else {'anchor': anchor})
    id = digest(inputs)
    texts = {'inputs': json.dumps(inputs), 'notes': json.dumps(notes)}
    safetensors.write(path_of(folder, id), arrays, notes=texts | {'checksum': _checksum(texts, arrays)})
    return id


def read(folder: Path, id: str) -> Stored:
    """Reads a chunk; raises Damaged unless it is whole."""
    file = path_of(folder, id)
    try:
        arrays = safetensors.SafeTensors(file)
        texts = {name: arrays.metadata[name] for name in ('inputs', 'notes')}
        inputs, notes = (json.loads(text) for text in texts.values())
        found = {name: np.array(array) for name, array in arrays.items()}
        whole = digest(inputs) == id and arrays.metadata['checksum'] == _checksum(texts, found)
    except FileNotFoundError:
        raise Damaged(f'chunk {id[:8]} is missing: there is no {file}') from None
    except (UnsafeCheckpointError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise Damaged(f'chunk {id[:8]} is damaged: {file}')
    return Stored(found['latents'], found.get('anchor'), inputs, notes)


def _checksum(texts, arrays):
    hashing = hashlib.sha256()
    for text in texts.values():
        hashing.update(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hashing.update(f'{name} {array.dtype} {array.shape}'.encode())
        hashing.update(array.view(np.uint8).data)
    return hashing.hexdigest()
