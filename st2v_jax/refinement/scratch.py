"""Large files, which hold the latents of a video between two steps, and the folder for those that are temporary.

Their space is taken before they are mapped into memory: writing to a page that the disk has no room for would end the
process without a word (SIGBUS).
"""

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

BLOCK = 2**20  # bytes written at a time where the file system cannot be asked to reserve them


@contextmanager
def scratch(folder: str | Path | None = None) -> Iterator[Path]:
    """A folder in `folder`, or in $TMPDIR, for the files of one run; it goes with them at the end of the block.

    Errors of the operating system about these files say what decides where they are.
    """
    with tempfile.TemporaryDirectory(prefix='st2v-', dir=folder, ignore_cleanup_errors=True) as made:
        try:
            yield Path(made)
        except OSError as error:
            if error.filename is None or Path(made) not in Path(error.filename).parents:
                raise
            told = f'{error.strerror}; $TMPDIR chooses the folder for temporary files'
            raise OSError(error.errno, told, error.filename) from error


def allocate(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array of zeros as a file; raises OSError, which names it, if there is no room for it."""
    with named(file), open(file, 'wb') as opened:
        _reserve(opened, math.prod(shape) * np.dtype(np.float32).itemsize)
    return np.memmap(file, np.float32, 'r+', shape=tuple(shape))


def append(file: Path, array: np.ndarray) -> None:
    """Writes an array to the end of a file, which is made if needed; raises OSError, which names it."""
    with named(file), open(file, 'ab') as opened:
        opened.write(array)


def cut(file: Path, size: int) -> int:
    """How many whole pieces of `size` bytes a file has, which is then cut after them; 0 if there is no file."""
    with named(file):
        if not file.exists():
            return 0
        whole = file.stat().st_size // size
        os.truncate(file, whole * size)
        return whole


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Errors of the operating system in this block name the file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def room(folder: str | Path | None = None) -> tuple[str, int]:
    """The folder that temporary files go to, and how many bytes are free there."""
    folder = str(folder or tempfile.gettempdir())
    return folder, shutil.disk_usage(folder).free


def check_room(needed: int, folder: str | Path | None = None) -> None:
    """Raises OSError if temporary files of `needed` bytes do not fit."""
    folder, free = room(folder)
    if needed > free:
        told = f'the enhancement needs {needed / 1e6:,.1f} MB in $TMPDIR, {free / 1e6:,.1f} MB are free'
        raise OSError(errno.ENOSPC, told, folder)


def _reserve(file, size):
    if hasattr(os, 'posix_fallocate'):
        try:
            return os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
    for begins in range(0, size, BLOCK):
        file.write(bytes(min(BLOCK, size - begins)))
