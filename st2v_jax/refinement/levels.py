"""The latents of a refinement between two steps, in two generations: a step reads one and writes the other.

In a folder they are files. After each span a journal is replaced, which says up to where the generation being written
is complete. So a run that is killed at any moment loses one span at most: what the journal does not know of is written
again, and nothing that is read is ever overwritten.
"""

import math
import zlib
from pathlib import Path

import numpy as np

from st2v_jax.errors import OutputError
from st2v_jax.refinement import scratch
from st2v_jax.storage import safetensors

JOURNAL = 'journal.safetensors'
FILES = (('x-0', 'x0-0'), ('x-1', 'x0-1'))  # of the two generations


class Levels:
    """The state of a refinement, in memory or as files.

    Attributes:
      done: steps that are complete; -1 while the noised latents are written, which is the first generation.
      chunk: number of the chunk with which the next step goes on.
      tail: [b, O, h, w, c], what that step has predicted for the frames to the left of this chunk; without meaning for
        chunk 0.
    """

    def __init__(self, shape: tuple[int, ...], tail: tuple[int, ...], folder: str | Path | None = None):
        """Nothing yet, for latents of this shape, [b, F, h, w, c], or for a baseline [b, n, m, h, w, c].

        tail: its shape. folder: where to keep files; None keeps all in memory.
        """
        self.done, self.chunk, self.tail = -1, 0, np.zeros(tail, np.float32)
        self._shape, self._folder = tuple(shape), None if folder is None else Path(folder)
        self._generations = [None, None]
        self._sums = np.zeros((2, 2, shape[1]), np.uint32)  # of each frame of x and x0 in both generations

    @classmethod
    def find(cls, shape: tuple[int, ...], tail: tuple[int, ...], steps: int, folder: str | Path) -> 'Levels | None':
        """What a run of so many steps left in a folder, as its journal says; None without a journal.

        Raises OutputError if the journal or what it says is complete is damaged.
        """
        journal = Path(folder, JOURNAL)
        if not journal.exists():
            return None
        found = cls(shape, tail, folder)
        try:
            entries = safetensors.SafeTensors(journal)
            found.done, found.chunk, frames = map(int, entries['at'])
            if not (0 <= found.done <= steps and found.chunk >= 0 and 0 <= frames <= shape[1]):
                raise ValueError(f'it is at step {found.done} of {steps}')
            for name, own in (('tail', found.tail), ('sums', found._sums)):
                if entries[name].shape != own.shape or entries[name].dtype != own.dtype:
                    raise ValueError(f'{name} is not that of such a video')
                own[:] = entries[name]
        except (KeyError, ValueError, TypeError) as error:
            raise damaged(folder, f'{JOURNAL} cannot be read ({error})') from None
        if found.done == steps:  # all but the result has gone, or may go
            found._generations[found._reads] = [found._map(found._reads, 0, shape[1]), None]
            return found
        found._generations[found._reads] = [found._map(found._reads, number, shape[1]) for number in range(2)]
        if found.chunk:
            found._generations[found._writes] = [found._map(found._writes, number, frames) for number in range(2)]
        return found

    @property
    def x(self) -> np.ndarray:
        """The latents after the last complete step, of the shape of all."""
        return self._generations[self._reads][0]

    @property
    def x0(self) -> np.ndarray:
        """The clean prediction of the last complete step, like x."""
        return self._generations[self._reads][1]

    def write(self, frames: slice, x: np.ndarray, x0: np.ndarray) -> None:
        """Writes some frames (of a baseline some chunks) of the step that is being done."""
        if self._generations[self._writes] is None:
            self._generations[self._writes] = [self._allocate(name) for name in FILES[self._writes]]
        for number, (array, new) in enumerate(zip(self._generations[self._writes], (x, x0), strict=True)):
            array[:, frames] = new
            if self._folder is not None:
                self._sums[self._writes, number, frames] = _sums(array[:, frames])

    def pass_on(self, chunk: int, frames: int, tail: np.ndarray) -> None:
        """Notes that the step is complete up to this chunk, for so many frames, with the tail that it passes on."""
        self.chunk, self.tail = chunk, np.array(tail)
        self._note(frames)

    def finish(self) -> None:
        """Notes that the step is complete."""
        self.done, self.chunk, self.tail = self.done + 1, 0, np.zeros_like(self.tail)
        self._note(0)

    def keep_result(self) -> None:
        """Lets go of all files but that of the latents after the last step; no further step can be done."""
        self._generations[self._writes], self._generations[self._reads] = None, [self.x, None]
        if self._folder is not None:
            for name in (*FILES[self._writes], FILES[self._reads][1]):
                Path(self._folder, name).unlink(missing_ok=True)

    @property
    def _reads(self):
        return self.done % 2

    @property
    def _writes(self):
        return (self.done + 1) % 2

    def _note(self, frames):
        if self._folder is None:
            return
        file = self._folder / JOURNAL
        at = np.array([self.done, self.chunk, frames], np.int32)
        with scratch.named(file):
            safetensors.write(file, {'at': at, 'tail': self.tail, 'sums': self._sums})

    def _allocate(self, name):
        if self._folder is None:
            return np.zeros(self._shape, np.float32)
        return scratch.allocate(self._folder / name, self._shape)

    def _map(self, generation, number, frames):
        """Opens a file of a generation, of which so many frames have to be as they were written."""
        name = FILES[generation][number]
        array = map_file(self._folder, name, self._shape, 'r+')
        wrong = np.flatnonzero(self._sums[generation, number, :frames] != _sums(array[:, :frames]))
        if len(wrong):
            raise damaged(self._folder, f'{name} has other numbers than were written, from frame {wrong[0]} on')
        return array


def remove(folder: str | Path) -> None:
    """Removes the files of a refinement from a folder."""
    for name in (JOURNAL, *FILES[0], *FILES[1]):  # the journal first: without it, the rest means nothing
        Path(folder, name).unlink(missing_ok=True)


def map_file(folder: Path, name: str, shape: tuple[int, ...], mode: str) -> np.ndarray:
    """A float32 array of a file that has just this size; raises OutputError if it does not, or is missing."""
    file, size = folder / name, math.prod(shape) * np.dtype(np.float32).itemsize
    found = file.stat().st_size if file.is_file() else 0
    if found != size:  # numpy would make a short file longer
        raise damaged(folder, f'{name} has {found:,} bytes, not {size:,}')
    return np.memmap(file, np.float32, mode, shape=shape)


def _sums(array):
    """Checksums [F] of the frames of an array [b, F, ...]."""
    return [zlib.crc32(np.ascontiguousarray(array[:, frame])) for frame in range(array.shape[1])]


def damaged(folder: str | Path, what: str) -> OutputError:
    """The error that what is in a folder is not what was written there."""
    return OutputError(f'the enhancement in {folder} is damaged: {what}; remove it to begin anew')
