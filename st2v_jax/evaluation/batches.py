"""The finished batches of a study, kept until its videos are measured: after a kill, the same command goes on."""

from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.sessions.fingerprint import digest
from st2v_jax.storage.atomic import clear, replacing

FOLDER = 'unfinished'


class Batches:
    """The batches of one study in OUT/unfinished, as OUT/unfinished/HASH-FIRST.npy.

    The hash is that of all that decides the videos, so a study with other settings reads none of them.
    """

    def __init__(self, out: str | Path, asked: dict[str, Any]):
        """asked: JSON values that decide every bit of the videos."""
        self._folder, self._name = Path(out, FOLDER), digest(asked)[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        clear(self._folder)

    def read(self, first: int) -> np.ndarray | None:
        """The videos uint8 [b, f, h, w, 3] of the batch whose first video has this index; None if it is not there."""
        try:
            return np.load(self._file(first))
        except FileNotFoundError:
            return None

    def write(self, first: int, videos: np.ndarray) -> None:
        """Keeps a batch, whole or not at all."""
        with replacing(self._file(first)) as file:
            np.save(file, videos)

    def remove(self) -> None:
        """Removes the batches of this study; the folder goes with the last one in it."""
        for file in self._folder.glob(f'{self._name}-*.npy'):
            file.unlink()
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _file(self, first):
        return self._folder / f'{self._name}-{first}.npy'
