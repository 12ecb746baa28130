"""The folder of a session: who may write to it, which model it is of, and the check that a model is that one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.errors import SessionError, WeightsError
from st2v_jax.open_model import SHIPPED
from st2v_jax.sessions import fingerprint, given
from st2v_jax.storage.atomic import clear, write_bytes
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_folder
from st2v_jax.storage.text import read_object
from st2v_jax.storage.untrusted import UnsafeCheckpointError
from st2v_jax.streaming.generate import Model
from st2v_jax.trees import computed_in

FORMAT = 1  # part of every id: a version whose chunks differ for the same inputs has another
PARTS = ('chunks', 'branches')
HEAD, HASHES = 'session.json', 'hashes.json'


def exists(folder: str | Path) -> bool:
    """Whether a folder is a session."""
    return Path(folder, HEAD).is_file()


def create(folder: Path, model: Model) -> None:
    """Makes an empty session in a folder that is new or empty; raises SessionError for another."""
    check_folder(folder)
    begun = {*PARTS, HASHES}  # by a run that was killed
    if folder.is_dir() and any(file.name not in begun and file.name[0] != '.' for file in folder.iterdir()):
        raise SessionError(f'{folder} is not a session, and not empty: a session is made in a folder of its own')
    weights, hashes = fingerprint.of_weights(_opened(model))
    about = {
        'format': FORMAT,
        'weights': weights,
        'source': _source(model.source),
        'dtype': _dtype(model),
        'frame_size': list(model.config.contract.frame_size),
    }
    for name in PARTS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    _write(folder / HASHES, hashes)
    _write(folder / HEAD, about)  # last: a folder with it is a session


def read(folder: Path) -> dict[str, Any]:
    """The head of the session in a folder; raises SessionError if there is none that this version reads."""
    if not exists(folder):
        raise SessionError(f'{folder} is not a session: there is no {HEAD} in it')
    try:
        about = read_object(folder / HEAD)
        if about['format'] != FORMAT:
            raise SessionError(f'{folder} has the format {about["format"]}, this version reads {FORMAT}')
        weights = {'config': about['weights']['config'], 'files': dict(about['weights']['files'])}
        return {name: about[name] for name in ('format', 'source', 'dtype', 'frame_size')} | {'weights': weights}
    except (UnsafeCheckpointError, KeyError, TypeError) as error:
        raise SessionError(f'{folder / HEAD} is damaged: {error}') from error


def check(folder: Path, about: dict[str, Any], model: Model) -> None:
    """Raises SessionError, with what differs, unless a session is of this model."""
    try:
        known = read_object(folder / HASHES)
    except (OSError, UnsafeCheckpointError):
        known = {}
    weights, _ = fingerprint.of_weights(_opened(model), known)
    if weights != about['weights']:
        files, then = ({**each['files'], 'config.json': each['config']} for each in (weights, about['weights']))
        differ = ', '.join(sorted(name for name in files | then if files.get(name) != then.get(name)))
        those = about['source'] or 'the small model'
        raise SessionError(f'{folder} was made with other weights ({differ} differ): those of {those}')
    size, then = ('x'.join(map(str, one)) for one in (model.config.frame_size, about['frame_size']))
    if size != then:
        raise SessionError(f'{folder} was made at {then}, not at {size}: --size {then} goes on')
    if _dtype(model) != about['dtype']:
        dtype = about['dtype']
        raise SessionError(f'{folder} was made in {dtype}, not in {_dtype(model)}: --dtype {dtype} goes on')


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Keeps other processes from changing the session in a folder, or from making one there.

    Files that killed runs left unfinished go. Raises OutputError if another process changes it, or if nothing can be
    written there.
    """
    with locked(folder):
        check_folder(folder)
        for part in (folder, *(Path(folder, name) for name in (*PARTS, given.FOLDER))):
            clear(part)
        yield


@contextmanager
def named(folder):
    """Errors of the operating system in this block name the session where they name no file, as for a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(folder)
        raise


def _opened(model):
    if model.source is None:
        raise WeightsError('a session is of a model on disk, and this one was made in memory')
    return model.source


def _source(opened):
    """Where the weights are, for the next run, which may be started elsewhere; None for the model of the package."""
    if opened.source == SHIPPED:
        return None
    return os.path.abspath(opened.source) if os.path.exists(opened.source) else str(opened.source)


def _dtype(model):
    return np.dtype(computed_in(model.params[model.config.backbone.KIND])).name


def _write(file, values):
    write_bytes(file, (json.dumps(values, indent=1) + '\n').encode())
