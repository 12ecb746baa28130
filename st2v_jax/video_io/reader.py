"""Reading videos piece by piece, at a constant rate."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from st2v_jax import stopping
from st2v_jax.errors import InputError
from st2v_jax.video_io.film import Film
from st2v_jax.video_io.pictures import pictures_in, read_picture
from st2v_jax.video_io.times import Shot, count_at, end_of, nearest, off, steady_rate

PIECE = 8  # frames read at a time
ASSUMED = 8.0  # frames per second of what has no times


class VideoReader:
    """The frames of a video at a constant rate, read piece by piece: iterate over it once, for uint8 [n, h, w, 3].

    Frames come as a player shows them: in their colours, turned as the file says, with square pixels, transparency over
    black, all of the size of the first one. A file is decoded once before, for its times: at a constant rate its frames
    come one by one; a variable rate becomes the mean one, by the frame nearest to each time. The duration stays.

    Args:
      path: a file that ffmpeg reads (mp4, webm, gif, ...), or a folder of pictures of one kind, in the order of their
        numbers.
      fps: frames per second wanted; None for those of the file. What has no times is only said to have this rate.

    Attributes:
      size: (height, width).
      fps: frames per second.
      frames: their number.
      notes: lines about what was guessed or changed.

    Raises:
      InputError: if there is no video to read, or if it is damaged; for a folder, at the damaged picture.
    """

    def __init__(self, path: str | Path, fps: float | Fraction | None = None):
        self.path, self.notes = str(path), []
        if not os.path.exists(path):
            raise InputError(f'cannot read {path}: there is no such file or folder')
        self._decoded = self._of_folder(fps) if os.path.isdir(path) else self._of_file(fps)
        self._first = next(self._decoded)
        self.size = self._first.shape[:2]

    def __iter__(self) -> Iterator[np.ndarray]:
        waiting, self._first = [self._first], None
        for frame in self._decoded:
            if len(waiting) == PIECE:
                yield np.stack(waiting)
                waiting = []
            waiting.append(frame)
        yield np.stack(waiting)

    def _of_folder(self, fps):
        files, size = pictures_in(self.path), None
        self.frames = len(files)
        self._set_rate(fps, ASSUMED)
        for file in files:
            stopping.check()
            frame = read_picture(file)
            size = size or frame.shape
            if frame.shape != size:
                raise InputError(f'cannot read {self.path}: {file.name} has another size than the first frame')
            yield frame

    def _of_file(self, fps):
        film = Film(self.path)
        shots = np.array([(shot.time, shot.lasts) for shot in film.shots()])
        if not len(shots):
            raise InputError(f'cannot read {self.path}: there are no frames in it')
        self.frames = len(shots)
        if not film.has_times:
            self._set_rate(fps, next(iter(film.rates), ASSUMED))
            yield from (film.pixels(shot.frame) for shot in film.shots())
            return
        self._resample(shots[:, 0], end_of(*shots.T), film.rates, fps)
        for shot, uses in nearest(film.shots(), self.fps, self.frames):
            if uses:
                yield from [film.pixels(shot.frame)] * uses

    def _set_rate(self, fps, assumed):
        """The rate of what has no times."""
        self.fps = float(fps or assumed)
        if fps is None:
            self.notes.append(f'no times: {self.fps:g} frames per second assumed; --fps sets another')

    def _resample(self, times, end, stated, fps):
        """The rate and the number of frames of a file."""
        steady = steady_rate(times, stated)
        rate = steady or (len(times) / end if end else ASSUMED)
        self.fps = float(fps or rate)
        self.frames = count_at(times, end, self.fps)
        if steady is None and len(times) > 1:
            change = 'resampled to its mean,' if fps is None else 'resampled to'
            self.notes.append(f'variable frame rate: {change} {self.fps:.4g} per second')
        elif off(times, self.fps) >= 0.5:
            self.notes.append(f'resampled from {rate:.4g} to {self.fps:.4g} frames per second')
        elif self.frames > len(times):
            self.notes.append(f'its last frame lasts {self.frames - len(times) + 1} times as long as others')


def read_video(path: str | Path) -> np.ndarray:
    """All frames of a video, uint8 [n, h, w, 3], as from a VideoReader."""
    return np.concatenate(list(VideoReader(path)))


def timed_frames(path: str | Path) -> Iterator[Shot]:
    """Yields all frames of a file as they are in it, uint8 [h, w, 3], with their times; nothing is resampled.

    Meant for many videos: the files are decoded once, and colours are up to three levels too dark.

    Raises InputError as VideoReader does, but where the file is damaged only when the frames before were yielded.
    """
    if not os.path.exists(path):
        raise InputError(f'cannot read {path}: there is no such file')
    film = Film(path, exact=False)  # training data: three levels matter less than the time
    for shot in film.shots():
        yield shot._replace(frame=film.pixels(shot.frame))
