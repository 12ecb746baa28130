"""What a branch starts from, kept as pixels: `given/ID.safetensors`, where the id is the hash of the pixels."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from st2v_jax.errors import SessionError
from st2v_jax.sessions.fingerprint import digest
from st2v_jax.storage import safetensors
from st2v_jax.storage.untrusted import UnsafeCheckpointError
from st2v_jax.video_io.start import Start

FOLDER = 'given'
NAME = re.compile(r'[0-9a-f]{64}\.safetensors')


class Given(NamedTuple):
    """What is known of a start without reading its pixels.

    Attributes:
      id: the hash of all that its chunks depend on.
      frames: how many there are.
      is_picture: see Start.
    """

    id: str
    frames: int
    is_picture: bool


def given(start: Start) -> Given:
    """The Given of a start."""
    hashed = {
        name: None if pixels is None else [*pixels.shape, hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()]
        for name, pixels in (('frames', start.frames), ('anchor', start.anchor))
    }
    about = {'kind': 'given', **hashed, 'picture': start.is_picture}
    return Given(digest(about), len(start.frames), start.is_picture)


def path_of(session: Path, id: str) -> Path:
    """The file of a start in the folder of a session."""
    return session / FOLDER / f'{id}.safetensors'


def write(session: Path, start: Start) -> Given:
    """Writes the pixels of a start whole or not at all, unless they are there."""
    known = given(start)
    file = path_of(session, known.id)
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        arrays = {'frames': start.frames} | ({} if start.anchor is None else {'anchor': start.anchor})
        safetensors.write(file, arrays)
    return known


def unused(session: Path, starts: Iterable[Given | None]) -> list[Path]:
    """The files of starts in a session that are none of `starts`."""
    used = {start.id for start in starts if start is not None}
    return [
        file for file in (session / FOLDER).glob('*.safetensors') if NAME.fullmatch(file.name) and file.stem not in used
    ]


def read(session: Path, known: Given) -> Start:
    """Reads a start; raises SessionError unless its file is whole."""
    file = path_of(session, known.id)
    try:
        arrays = {name: np.array(array) for name, array in safetensors.SafeTensors(file).items()}
        start = Start(arrays['frames'], arrays.get('anchor'), known.is_picture)
        whole = given(start) == known
    except FileNotFoundError:
        raise SessionError(f'what the video starts from is missing: there is no {file}') from None
    except (UnsafeCheckpointError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise SessionError(f'what the video starts from is damaged: {file}')
    return start
