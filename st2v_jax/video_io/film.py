"""Video files, decoded by ffmpeg: their frames with times, and whether all that the file states is there."""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from st2v_jax import stopping
from st2v_jax.errors import InputError
from st2v_jax.video_io.pixels import MAX_PIXELS, Turn, shown
from st2v_jax.video_io.times import LONGEST, Shot

# ffmpeg's own decoders of these codecs leave the transparency out
WITH_ALPHA = {'vp8': 'libvpx', 'vp9': 'libvpx-vp9'}


class Film:
    """A video file; its frames can be decoded several times.

    exact: whether colours are right to a level, see `pixels.shown`.

    Attributes:
      rates: frames per second that the file states, or that ffmpeg guesses; the likeliest first, maybe none.
      has_times: whether the first frame says when it is shown; None until it is decoded.

    Raises:
      InputError: if the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike, *, exact: bool = True):
        self.path, self.has_times, self._stated, self._exact = os.fspath(path), None, 0, exact
        if not os.path.isfile(path):
            raise InputError(f'cannot read {path}: it is not a file; what comes through a pipe must be saved first')
        with self._errors(lambda: 0), self._opened() as (_, stream):
            self._stated = stream.frames
            self.rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate and rate > 0]

    def shots(self) -> Iterator[Shot]:
        """Decodes the file: yields its frames, which `pixels` makes arrays of, with their times.

        Without times they follow each other at the first of `rates`. Raises InputError where the file is damaged, and
        at its end if less was in it than it states.
        """
        count, start, time, lasts = 0, None, 0.0, 0.0
        usual = 1 / float(self.rates[0]) if self.rates else 0.0
        with self._errors(lambda: count), self._opened() as (file, stream):
            read = _Read(self.path, file, stream)
            decode = _decoder(stream)
            for packet in file.demux():
                stopping.check()
                read.add(packet)
                for frame in decode(packet) if packet.stream.index == stream.index else ():
                    if start is None:
                        start, self.has_times = frame.time, frame.time is not None
                        self._measure(stream, frame)
                    follows = not self.has_times or frame.time is None or file.format.name == 'gif'
                    at = time + lasts if follows else frame.time - start
                    if at - time > LONGEST:
                        raise InputError(
                            f'cannot read {self.path}: it is damaged: frame {count} lasts {at - time:.0f} s'
                        )
                    time = max(time, at)
                    count += 1
                    lasts = _lasts(frame, file) or usual
                    yield Shot(time, lasts, frame)
            if self.has_times:
                missing = read.missing(count)
                if missing:
                    raise InputError(f'cannot read {self.path}: it is damaged after {missing}')

    def pixels(self, frame: Any) -> np.ndarray:
        """A frame of `shots` as uint8 [h, w, 3]: all have the size and the direction of the first."""
        with self._errors(lambda: 1):
            return self._turn(shown(frame, *self._size, exact=self._exact))

    @contextlib.contextmanager
    def _opened(self):
        """The container and the stream that a player would show."""
        import av

        # A colon makes a name a protocol for ffmpeg. A playlist must not lead into the network, nor be waited for
        options = {'protocol_whitelist': 'file', 'max_reload': '0', 'max_pixels': str(MAX_PIXELS)}
        with av.open(f'file:{self.path}', options=options, metadata_errors='replace') as file:
            stream = file.streams.best('video')
            if stream is None:
                raise InputError(f'cannot read {self.path}: there is no video in it')
            stream.codec_context.options = {'max_pixels': str(MAX_PIXELS)}
            yield file, stream

    @contextlib.contextmanager
    def _errors(self, count):
        """Turns everything that the library raises into an InputError."""
        import av

        try:
            yield
        except InputError:
            raise
        except (av.error.InvalidDataError, av.error.EOFError) as error:
            of = f' of {self._stated}' if self._stated else ''
            where = f'it is damaged after {count()}{of} frames' if count() else 'it is not a video, or a damaged one'
            raise InputError(f'cannot read {self.path}: {where}') from error
        except Exception as error:  # PyAV raises errors of many kinds for damaged files
            reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
            raise InputError(f'cannot read {self.path}: {reason}') from error

    def _measure(self, stream, frame):
        """Finds the size with square pixels, and the direction."""
        height, width = frame.height, max(1, round(frame.width * (stream.sample_aspect_ratio or 1)))
        if height * width > MAX_PIXELS:
            raise InputError(f'cannot read {self.path}: frames of {height}x{width} pixels are more than {MAX_PIXELS}')
        self._size, self._turn = (height, width), Turn(frame)


class _Read:
    """How much of a file was read, compared with what the file states."""

    def __init__(self, path, file, stream):
        self._path, self._file, self._stream = path, file, stream
        self._first, self._last, self._packets, self._times = math.inf, -math.inf, 0, []

    def add(self, packet):
        """Counts a packet of any stream: where a file is cut, all of its streams end."""
        start = packet.dts if packet.pts is None else packet.pts
        ours = packet.stream.index == self._stream.index
        self._packets += bool(ours and packet.size)
        if start is None or not packet.time_base:
            return
        self._first = min(self._first, float(start * packet.time_base))
        self._last = max(self._last, float((start + (packet.duration or 0)) * packet.time_base))
        if ours:
            self._times.append(float(start * packet.time_base))

    def missing(self, frames):
        """How much was read, as '56 of 120 frames', if that is clearly less than the file states, otherwise None."""
        if self._file.format.name == 'gif':  # it states only that it ends
            return None if _has_trailer(self._path) else f'{frames} frames'
        stated, seconds = self._stream.frames, (self._file.duration or 0) / 1e6
        gaps = np.diff(np.sort(self._times))
        if not seconds or not len(gaps):
            return None
        # Statements are off by some frames, and the last frame may last longer than its packet says
        allowed = max(3 * np.mean(gaps), 1.5 * np.max(gaps), 0.02 * seconds)
        reached = self._last - min(self._first, 0.0)  # headers count from zero, even where the first frame is later
        if seconds - reached <= allowed or (stated and self._packets >= stated):
            return None
        if 'matroska' in self._file.format.name and not _is_cut(self._path):
            return None
        return f'{frames} of {stated} frames' if stated else f'{reached:.1f} of {seconds:.1f} seconds'


def _decoder(stream):
    """A function from packets to frames."""
    import av

    name = WITH_ALPHA.get(stream.codec_context.name)
    has_alpha = {key.lower(): value for key, value in stream.metadata.items()}.get('alpha_mode') == '1'
    if name not in av.codecs_available or not has_alpha:
        return lambda packet: packet.decode()
    decoder = av.CodecContext.create(name, 'r')
    decoder.options = {'max_pixels': str(MAX_PIXELS)}
    return decoder.decode


def _lasts(frame, file):
    """Seconds that a frame is shown; 0 if the file does not say. Browsers do not believe delays below 0.02 in a gif."""
    lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
    return 0.1 if file.format.name == 'gif' and lasts < 0.02 else lasts


def _has_trailer(path):
    with open(path, 'rb') as file:
        file.seek(max(0, os.path.getsize(path) - 64))
        return file.read().rstrip(b'\0\r\n ').endswith(b';')


def _is_cut(path):
    """Whether a Matroska file is shorter than it states. Its frames do not say how long they last, so the last one may
    last as long as all others, and nothing is missing."""
    with open(path, 'rb') as file:
        try:
            header, start = _element(file, 0)
            size, start = _element(file, start + header)  # the segment, which holds all of the rest
        except (IndexError, TypeError, OSError):
            return True
    return size is not None and start + size > os.path.getsize(path)


def _element(file, start):
    """(size or None, where its content starts) of the element of EBML at `start`."""
    file.seek(start)
    head = file.read(12)
    size_at = 9 - head[0].bit_length()  # leading zero bits tell how long a number is
    width = 9 - head[size_at].bit_length()
    mask = (1 << 7 * width) - 1
    size = int.from_bytes(head[size_at : size_at + width], 'big') & mask
    return (None if size == mask else size), start + size_at + width
