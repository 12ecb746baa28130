"""Whether a file can be written somewhere, found out before the work that it is for. What exists is not touched."""

import os
import secrets
import stat
from pathlib import Path

from st2v_jax.errors import OutputError
from st2v_jax.storage import buckets
from st2v_jax.storage.atomic import beside


def check_file(path: str | Path) -> Path:
    """Where a file of this name will be, at the end of all links; raises OutputError unless it can be written there."""
    found = _look(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OutputError(f'cannot write {path}: it is a folder')
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise OutputError(f'cannot write {path}: it is not a file but a device, a pipe or a socket')
    if found is not None and not os.access(path, os.W_OK):
        raise OutputError(f'cannot write {path}: no permission')
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    _try(target, f'{path}: it is a link to {target}' if os.path.islink(path) else f'{path}: {target.parent}')
    return target


def check_folder(path: str | Path) -> None:
    """Raises OutputError unless files can be written to the folder `path`, which may be new in a folder that exists."""
    if buckets.is_address(path):
        return _check_address(path)
    found, folder = _look(path), Path(path)
    if found is None and folder.is_symlink():
        raise OutputError(f'cannot write {path}: it is a link to {os.path.realpath(folder)}, which is not there')
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise OutputError(f'cannot write {path}: it is a file, not a folder')
    place = folder if found is None else folder / 'file'
    _try(place, f'{path}: {place.parent}')


def _check_address(path):
    trial = buckets.located(path) / f'.{secrets.token_hex(8)}.part'
    try:
        with buckets.reaching(path):
            buckets.write(trial, b'')
            trial.unlink()
    except OSError as error:
        raise OutputError(f'cannot write {error}') from error


def _look(path):
    """What is there, at the end of all links; None for nothing."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # such as a name that is too long, or that has a zero in it
        raise OutputError(f'cannot write {path}: {getattr(error, "strerror", error)}') from error


def _try(place, what):
    """Makes and removes a file beside `place`, under the longest name that its writer will use."""
    try:
        trial = beside(place)
        with open(trial, 'xb'):
            pass
        trial.unlink()
    except (OSError, ValueError) as error:
        raise OutputError(f'cannot write {what}: {getattr(error, "strerror", error)}') from error
