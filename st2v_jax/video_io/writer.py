"""Writing videos as their frames come."""

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax import stopping
from st2v_jax.errors import OutputError
from st2v_jax.storage.atomic import replacing
from st2v_jax.storage.places import check_file, check_folder
from st2v_jax.video_io.pixels import coded, tag, to_uint8
from st2v_jax.video_io.series import Series

ENDINGS = ('.mp4', '.gif', '.png')
# Lowest and highest frames per second. A gif stores hundredths of a second in 16 bits, and browsers slow down what is
# shorter than two of them.
RATES = {'.mp4': (0.001, 1000), '.gif': (0.002, 50)}


class VideoWriter:
    """Writes frames to `path` as they come. A context manager; after an error the frames so far stay in the file.

    Creating a writer empties an existing mp4, and removes an older PNG series. A gif is replaced when it is complete.

    Args:
      path: `.mp4` is H.264 in fragments of one frame, so all frames but the last can be played while the file grows, or
        after its writer was killed. `.gif` is written on closing. `name.png` makes `name-0000.png` and so on, and
        `name-%03d.png` numbers as it says. A folder (one that exists, or a path that ends with /) receives
        `frame-0000.png` and so on. Each PNG file is written whole or not at all.
      fps: frames per second, see `check_rate`.
      size: (height, width) in pixels, even numbers for mp4.
      metadata: a dict of JSON values that is stored in the file, for PNG in each file.

    Attributes:
      frames: how many were written.
      kept: how many of them are in the file for certain.

    Raises:
      OutputError: if nothing can be written; OSError for a disk that fails or is full later.
    """

    def __init__(
        self, path: str | Path, fps: float | Fraction, size: tuple[int, int], metadata: Mapping[str, Any] | None = None
    ):
        if not fps > 0:
            raise ValueError(f'a video must have more than 0 frames per second, not {fps}')
        check_output(path)
        check_rate(path, fps)
        self.path, self.size, self.frames = str(path), tuple(size), 0
        comment = json.dumps(metadata or {}, ensure_ascii=False)
        try:
            self._file = _FORMATS[_ending(path)](self.path, _exact(fps), self.size, comment)
        except OSError as error:
            raise OutputError(f'cannot write {path}: {error.strerror or error}') from error
        self._open = True

    @property
    def kept(self) -> int:
        return self._file.kept

    def write(self, frames: np.ndarray) -> None:
        """Appends frames [n, h, w, 3], uint8 or floats clipped to [-1, 1]; ValueError for NaN or another size."""
        frames = to_uint8(frames)
        if frames.ndim != 4 or frames.shape[1:] != (*self.size, 3):
            raise ValueError(f'frames of shape {frames.shape} do not fit a video of {self.size} pixels')
        for frame in frames:
            with _named(self.path):
                self._file.add(frame)
            self.frames += 1
            stopping.check()  # afterwards: what was opened has a frame

    def close(self) -> None:
        """Finishes the file; a second call does nothing."""
        if self._open:
            self._open = False
            with _named(self.path):
                self._file.close()

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


@contextlib.contextmanager
def _named(path):
    """Errors of the operating system are about `path`, not about the file that was to become it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), path) from error


def check_rate(path: str | Path, fps: float | Fraction) -> None:
    """Raises OutputError unless a file such as `path` can hold so many frames per second; PNG files hold none."""
    lowest, highest = RATES.get(_ending(path), (0, float('inf')))
    if not lowest <= fps <= highest:
        kind = {'.mp4': 'an mp4', '.gif': 'a gif'}[_ending(path)]
        more = ', an mp4 up to 1000' if kind == 'a gif' and fps > highest else ''
        raise OutputError(
            f'cannot write {path}: {kind} holds {lowest} to {highest} frames per second{more}; not {float(fps):g}'
        )


def _exact(fps):
    """The rate as the fraction that was meant: 30000/1001 for 29.97002997."""
    return Fraction(fps).limit_denominator(10**6)


def check_output(path: str | Path) -> None:
    """Raises OutputError unless a VideoWriter could write to `path`; existing files are not touched."""
    ending = _ending(path)
    if ending not in ENDINGS:
        raise OutputError(f'cannot write {path}: its ending must be one of {", ".join(ENDINGS)}; a folder ends with /')
    if is_folder(path):
        if not str(path).endswith(('/', os.sep)) and Path(path).suffix.lower() in ENDINGS:
            raise OutputError(f'cannot write {path}: it is a folder, and one for frames is written with / at its end')
        check_folder(path)
    elif ending != '.png':
        check_file(path)
    else:
        try:
            series = _series(path)
        except ValueError as error:
            raise OutputError(f'cannot write {path}: {error}') from error
        for number in (0, 999_999):  # its name grows
            check_file(series.file(number))
    if ending == '.png' and (foreign := _series(path).foreign()):
        raise OutputError(
            f'cannot write {path}: there are frames that this program did not write, such as {foreign[0]}'
        )


class _Mp4:
    def __init__(self, path, fps, size, comment):
        import av

        if size[0] % 2 or size[1] % 2:
            raise ValueError(f'an mp4 has an even height and width, not {size[0]}x{size[1]}')
        self._path, self.kept, self._added, self._whole, self._failed = path, 0, 0, 0, False
        # First a header, then every frame as a fragment, flushed: nothing written later is needed to play it
        flags = 'frag_every_frame+empty_moov+default_base_moof'
        with self._library():
            # ffmpeg takes what is before a colon for a protocol
            self._container = av.open(
                f'file:{path}', 'w', format='mp4', options={'movflags': flags, 'flush_packets': '1'}
            )
            self._container.metadata['comment'] = comment
            options = {'tune': 'zerolatency', 'crf': '16', 'g': str(max(1, round(2 * fps)))}
            self._stream = self._container.add_stream('libx264', rate=fps, options=options)
            self._stream.height, self._stream.width = size
            self._stream.pix_fmt = 'yuv420p'
            tag(self._stream.codec_context, size[0])
            self._container.start_encoding()

    def add(self, frame):
        with self._library():
            self._container.mux(self._stream.encode(coded(frame)))
        # The fragment of a frame is complete when the next frame comes
        self.kept, self._added, self._whole = self._added, self._added + 1, os.path.getsize(self._path)

    def close(self):
        if self._failed:
            return
        with self._library():
            self._container.mux(self._stream.encode())
            self._container.close()
        self.kept = self._added

    @contextlib.contextmanager
    def _library(self):
        """Turns everything that PyAV raises into an OSError, and leaves a file of complete fragments."""
        try:
            yield
        except Exception as error:
            self._failed = True
            if self._whole:  # the rest of a fragment would make the file look damaged
                with contextlib.suppress(Exception):
                    self._container.close()
                os.truncate(self._path, self._whole)
            reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
            raise OSError(getattr(error, 'errno', None) or errno.EIO, reason) from error


class _Gif:
    def __init__(self, path, fps, size, comment):
        self._path, self._fps, self._comment, self._pictures, self.kept = path, fps, comment, [], 0

    def add(self, frame):
        from PIL import Image

        self._pictures.append(Image.fromarray(frame).quantize(256))

    def close(self):
        if not self._pictures:
            return
        first, *others = self._pictures
        # gif counts in hundredths of a second; round times, not durations, so that errors do not add up
        times = [10 * round(100 * number / self._fps) for number in range(len(self._pictures) + 1)]
        lengths = [end - begin for begin, end in zip(times, times[1:])]
        settings = dict(duration=lengths, loop=0, comment=self._comment.encode())
        with replacing(os.path.realpath(self._path)) as file:  # a link stays one
            first.save(file, 'GIF', save_all=True, append_images=others, **settings)
        self.kept = len(self._pictures)


class _Png:
    def __init__(self, path, fps, size, comment):
        if is_folder(path):
            Path(path).mkdir(exist_ok=True)
        self._series, self._comment, self.kept = _series(path), comment, 0
        for file in self._series.there():  # check_output found only our own
            file.unlink()

    def add(self, frame):
        from PIL import Image, PngImagePlugin

        notes = PngImagePlugin.PngInfo()
        notes.add_itxt('comment', self._comment)
        with replacing(self._series.file(self.kept)) as file:
            Image.fromarray(frame).save(file, 'PNG', pnginfo=notes)
        self.kept += 1

    def close(self):
        pass


_FORMATS = {'.mp4': _Mp4, '.gif': _Gif, '.png': _Png}


def _series(path):
    return Series(os.path.join(path, 'frame.png') if is_folder(path) else path)


def is_folder(path: str | Path) -> bool:
    """Whether frames that are written to `path` become files in a folder."""
    return str(path).endswith(('/', os.sep)) or os.path.isdir(path)


def _ending(path):
    return '.png' if is_folder(path) else Path(path).suffix.lower()
