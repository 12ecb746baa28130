"""The videos that a run writes: how they are named, and that no other run and no other prompt writes them."""

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from st2v_jax import video_io
from st2v_jax.storage.lock import Busy, locked
from st2v_jax.storage.names import fit


@contextmanager
def claimed(output: str) -> Iterator[str]:
    """Locks an output that the user named, and yields it; raises OutputError if it cannot be written."""
    video_io.check_output(output)
    with locked(_series(output)):
        yield output


@contextmanager
def unused(name: str) -> Iterator[str]:
    """Locks `name`, or the first of name-2, name-3, ... that nothing has and that no run is writing, and yields it."""
    folder, name = os.path.split(name)
    root, ending = os.path.splitext(name)
    for number in itertools.count(1):
        free = os.path.join(folder, name if number == 1 else fit(root, f'-{number}{ending}'))
        if os.path.lexists(free):
            continue
        video_io.check_output(free)
        with ExitStack() as lock:
            try:
                lock.enter_context(locked(free))
            except Busy:
                continue
            if not os.path.lexists(free):  # another run may have finished it before we had the lock
                yield free
                return


def numbered(output: str, number: int) -> str:
    """The output with the number of a prompt: clip.mp4 -> clip-003.mp4, frames/ -> frames-003/, . -> ./003/."""
    stem, ending = _parts(output)
    return f'{stem}{number:03d}{ending}'


class Draft:
    """The video before its enhancement, beside its output; a context manager that locks it from when it is made.

    Attributes:
      path: its name once it is made, or None.
    """

    def __init__(self, output: str):
        folder, stem = os.path.split(_parts(output)[0])
        self._wanted = os.path.join(folder, fit(stem, 'draft.mp4'))
        self._lock, self._made, self.path = ExitStack(), None, None

    def check(self) -> None:
        """Raises OutputError if no draft can be written."""
        with unused(self._wanted):
            pass

    def make(self) -> str:
        """Makes an empty file under a name that nothing has, and returns its path."""
        path = self._lock.enter_context(unused(self._wanted))
        with open(path, 'xb') as file:
            self._made, self.path = os.fstat(file.fileno()), path
        return path

    def remove(self) -> None:
        """Removes the file, unless it has gone or another one has its name by now."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.path), self._made):
                os.remove(self.path)

    def __enter__(self) -> 'Draft':
        return self

    def __exit__(self, *exception):
        self._lock.close()


def _parts(output):
    """(what comes before something that is added to the name of an output, what comes after it)"""
    if not video_io.is_folder(output):
        root, ending = os.path.splitext(output)
        return f'{root}-', ending
    folder = output.rstrip('/') or '/'
    nameless = os.path.basename(folder) in ('', os.curdir, os.pardir)
    return (os.path.join(folder, '') if nameless else f'{folder}-'), '/'


def _series(output):
    """The path that stands for all files of an output: frames/ and frames/frame-%04d.png are the same series."""
    path = Path(output)
    if video_io.is_folder(output) or path.suffix.lower() != '.png':
        return path
    stem = re.sub(r'-?%\d*d$', '', path.stem)
    return path.parent if stem == 'frame' else path.with_name(f'{stem}.png')
