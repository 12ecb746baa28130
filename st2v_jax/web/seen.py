"""What browsers are sent of a chunk: a piece of video and its part of the X-T slice.

Both are made of the frames of a chunk and kept in a hidden folder beside the sessions, under the id of the chunk. They
can be deleted at any time, and are then made again of the latents.
"""

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from st2v_jax.evaluation.sheets import slice_over_time
from st2v_jax.storage.atomic import replacing
from st2v_jax.video_io import VideoWriter, to_uint8

FOLDER = '.seen'


class Seen:
    """The kept files; folder: where the sessions lie."""

    def __init__(self, folder: Path, fps: float):
        self.folder, self._fps = folder / FOLDER, fps
        self._decoding, self._exporting = threading.Lock(), threading.Lock()
        self.folder.mkdir(exist_ok=True)

    def keep(self, name: str, frames: np.ndarray) -> None:
        """Writes the files of frames [n, H, W, 3] that are shown under a name."""
        with replacing(self.folder / f'{name}.png') as file:  # time to the right, the middle row of pixels downwards
            middle = slice_over_time(frames, row=frames.shape[1] // 2)
            Image.fromarray(middle.transpose(1, 0, 2)).save(file, 'PNG')
        self._write(self.folder / f'{name}.mp4', [frames])  # last: with it, all is there

    def file(self, name: str, ending: str, frames: Callable[[], np.ndarray]) -> Path:
        """The .mp4 or .png of a name; `frames` makes what is shown if it is not kept."""
        file = self.folder / f'{name}{ending}'
        with self._decoding:
            if not file.exists():
                self.keep(name, to_uint8(frames()))
        return file

    def video(self, name: str, pieces: Callable[[], Iterable[np.ndarray]], metadata: Callable[[], Any]) -> Path:
        """The mp4 of a name, a whole video; `pieces` and `metadata` make it if it is not kept."""
        file = self.folder / f'{name}.mp4'
        with self._exporting:
            if not file.exists():
                self._write(file, pieces(), metadata())
        return file

    @contextlib.contextmanager
    def folder_of_its_own(self) -> Iterator[Path]:
        """A new folder for a file that is not complete yet, on the disk where sessions lie; it goes with the block."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)

    def _write(self, file, pieces, metadata=None):
        with self.folder_of_its_own() as folder:
            write_video(folder / file.name, pieces, self._fps, metadata)
            (folder / file.name).replace(file)


def write_video(file: Path, pieces: Iterable[np.ndarray], fps: float, metadata: Any = None) -> None:
    """Writes an mp4 of pieces [n, H, W, 3]."""
    video = None
    try:
        for frames in pieces:
            video = video or VideoWriter(file, fps, frames.shape[1:3], metadata)
            video.write(frames)
    finally:
        if video is not None:
            video.close()
