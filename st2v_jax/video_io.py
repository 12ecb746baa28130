"""Videos to and from files: mp4 that can be played while it is written, gif, and numbered PNG frames.

The settings that made a video are stored in the file's comment as JSON; `read_metadata` returns them.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st2v_jax.errors import InputError, OutputError
from st2v_jax.storage.atomic import replacing
from st2v_jax.storage.places import check_file, check_folder

if TYPE_CHECKING:
    import jax

ENDINGS = ('.mp4', '.gif', '.png')
PIECE = 8  # frames read at a time


class VideoWriter:
    """Writes frames to `path` as they come. A context manager; after an error the frames so far stay in the file.

    Creating a writer empties an existing mp4; gif and PNG files are replaced one by one when they are complete.

    Args:
      path: `.mp4` is H.264 in fragments of one frame, so all frames but the last can be played while the file grows, or
        after its writer was killed. `.gif` is written on closing. `name.png` makes `name-0000.png` and so on, and
        `name-%03d.png` numbers as it says. A folder (one that exists, or a path that ends with /) receives
        `frame-0000.png` and so on.
      fps: frames per second, > 0.
      size: (height, width) in pixels, even numbers for mp4.
      metadata: a dict of JSON values that is stored in the file, for PNG in each file.

    Raises:
      OutputError: if nothing can be written.
    """

    def __init__(
        self, path: str | Path, fps: float | Fraction, size: tuple[int, int], metadata: Mapping[str, Any] | None = None
    ):
        if not fps > 0:
            raise ValueError(f'a video must have more than 0 frames per second, not {fps}')
        check_output(path)
        self.path, self.size, self.frames = str(path), tuple(size), 0
        comment = json.dumps(metadata or {}, ensure_ascii=False)
        try:
            self._file = _FORMATS[_ending(path)](self.path, Fraction(fps).limit_denominator(1001), self.size, comment)
        except OSError as error:
            raise OutputError(f'cannot write {path}: {error.strerror or error}') from error

    def write(self, frames: np.ndarray) -> None:
        """Appends frames [n, h, w, 3], uint8 or floats clipped to [-1, 1]; ValueError for NaN or another size."""
        frames = to_uint8(frames)
        if frames.ndim != 4 or frames.shape[1:] != (*self.size, 3):
            raise ValueError(f'frames of shape {frames.shape} do not fit a video of {self.size} pixels')
        for frame in frames:
            self._file.add(frame)
            self.frames += 1

    def close(self) -> None:
        """Finishes the file; a second call does nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def check_output(path: str | Path) -> None:
    """Raises OutputError unless a VideoWriter could write to `path`; existing files are not touched."""
    ending, name = _ending(path), Path(path).name
    if ending not in ENDINGS:
        raise OutputError(f'cannot write {path}: its ending must be one of {", ".join(ENDINGS)}; a folder ends with /')
    if is_folder(path):
        if not str(path).endswith(('/', os.sep)) and Path(path).suffix.lower() in ENDINGS:
            raise OutputError(f'cannot write {path}: it is a folder, and one for frames is written with / at its end')
        check_folder(path)
        return
    if ending != '.png':
        check_file(path)
        return
    pattern = name if '%' in name else f'{Path(name).stem}-%04d.png'
    if not _numbers_frames(pattern):
        raise OutputError(f'cannot write {path}: a pattern numbers its frames as in name-%04d.png')
    for number in (0, 999_999):  # its name grows
        check_file(Path(path).with_name(pattern % number))


def to_uint8(frames: 'np.ndarray | jax.Array') -> np.ndarray:
    """Frames as uint8 0..255: floats in [-1, 1] are clipped, uint8 is returned as it is. Raises ValueError for NaN."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return frames
    if np.isnan(frames).any():
        raise ValueError('frames contain NaN: the model with these settings made no picture')
    return np.uint8(np.round((np.clip(frames, -1, 1) + 1) * 127.5))


def to_floats(frames: 'np.ndarray | jax.Array') -> 'np.ndarray | jax.Array':
    """uint8 frames as float32 in [-1, 1]."""
    return frames.astype(np.float32) / 127.5 - 1


class VideoReader:
    """The frames of a video, read piece by piece: iterate over it once, for uint8 [n, h, w, 3].

    Frames come as a player shows them: rotated as the file says, with square pixels, all of the size of the first one.

    Args:
      path: a file that ffmpeg reads (mp4, webm, gif, ...), or a folder of PNG files, in the order of their numbers.

    Attributes:
      size: (height, width).
      fps: frames per second; None for a folder, and if the file does not say.
      frames: their number; None if the file does not say.

    Raises:
      InputError: at once if there is no video to read, or at the frame where a file is damaged.
    """

    def __init__(self, path: str | Path):
        self.path, self.fps, self.frames = str(path), None, None
        if not os.path.exists(path):
            raise InputError(f'cannot read {path}: there is no such file or folder')
        self._decoded = self._of_folder() if os.path.isdir(path) else self._of_file()
        self._first = next(self._decoded, None)
        if self._first is None:
            raise InputError(f'cannot read {path}: there are no frames in it')
        self.size = self._first.shape[:2]

    def __iter__(self) -> Iterator[np.ndarray]:
        waiting, self._first = [self._first], None
        for frame in self._decoded:
            if len(waiting) == PIECE:
                yield np.stack(waiting)
                waiting = []
            waiting.append(frame)
        yield np.stack(waiting)

    def _of_folder(self):
        from PIL import Image

        number = lambda file: [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', file.name)]
        files, size = sorted(Path(self.path).glob('*.png'), key=number), None
        self.frames = len(files)
        for file in files:
            try:
                with Image.open(file) as picture:
                    frame = np.asarray(picture.convert('RGB'))
            except (OSError, SyntaxError) as error:  # what Pillow raises for damaged files
                raise InputError(f'cannot read {file}: {error}') from error
            size = size or frame.shape
            if frame.shape != size:
                raise InputError(f'cannot read {self.path}: {file.name} has another size than the first frame')
            yield frame

    def _of_file(self):
        import av

        count = 0
        try:
            with av.open(self.path) as file:
                if not file.streams.video:
                    raise InputError(f'cannot read {self.path}: there is no video in it')
                stream = file.streams.video[0]
                rate = stream.average_rate or stream.guessed_rate
                self.fps, self.frames = float(rate) if rate else None, stream.frames or None
                aspect = stream.sample_aspect_ratio or 1
                size = stream.height, max(1, round(stream.width * aspect))
                for frame in file.decode(stream):
                    pixels = frame.to_ndarray(format='rgb24', height=size[0], width=size[1])
                    yield np.rot90(pixels, frame.rotation // 90)
                    count += 1
        except av.error.FFmpegError as error:
            where = error.strerror
            if isinstance(error, av.error.InvalidDataError):
                where = f'it is damaged after {count} frames' if count else 'it is not a video, or a damaged one'
            raise InputError(f'cannot read {self.path}: {where}') from error


def read_video(path: str | Path) -> np.ndarray:
    """All frames of a video, uint8 [n, h, w, 3], as from a VideoReader."""
    return np.concatenate(list(VideoReader(path)))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata that a VideoWriter stored in an mp4, gif or png; {} if there is none."""
    if _ending(path) == '.mp4':
        import av

        with av.open(str(path)) as file:
            comment = file.metadata.get('comment')
    else:
        from PIL import Image

        with Image.open(path) as file:
            comment = file.info.get('comment')
    return json.loads(comment) if comment else {}


class _Mp4:
    def __init__(self, path, fps, size, comment):
        import av

        if size[0] % 2 or size[1] % 2:
            raise ValueError(f'an mp4 has an even height and width, not {size[0]}x{size[1]}')
        # First a header, then every frame as a fragment, flushed: nothing written later is needed to play it
        flags = 'frag_every_frame+empty_moov+default_base_moof'
        self._container = av.open(path, 'w', format='mp4', options={'movflags': flags, 'flush_packets': '1'})
        self._container.metadata['comment'] = comment
        options = {'tune': 'zerolatency', 'crf': '16', 'g': str(max(1, round(2 * fps)))}
        self._stream = self._container.add_stream('libx264', rate=fps, options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = 'yuv420p'

    def add(self, frame):
        import av

        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
        self._container.mux(self._stream.encode(picture))

    def close(self):
        self._container.mux(self._stream.encode())
        self._container.close()


class _Gif:
    def __init__(self, path, fps, size, comment):
        self._path, self._fps, self._comment, self._pictures = path, fps, comment, []

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


class _Png:
    def __init__(self, path, fps, size, comment):
        if is_folder(path):
            Path(path).mkdir(exist_ok=True)
            path = os.path.join(path, 'frame.png')
        self._folder, self._name = os.path.split(path)
        if '%' not in self._name:
            self._name = f'{os.path.splitext(self._name)[0]}-%04d.png'
        self._comment, self._count = comment, 0

    def add(self, frame):
        from PIL import Image, PngImagePlugin

        notes = PngImagePlugin.PngInfo()
        notes.add_itxt('comment', self._comment)
        Image.fromarray(frame).save(os.path.join(self._folder, self._name % self._count), pnginfo=notes)
        self._count += 1

    def close(self):
        pass


_FORMATS = {'.mp4': _Mp4, '.gif': _Gif, '.png': _Png}


def _numbers_frames(pattern):
    try:
        return pattern % 0 != pattern % 1
    except (TypeError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether frames that are written to `path` become files in a folder."""
    return str(path).endswith(('/', os.sep)) or os.path.isdir(path)


def _ending(path):
    return '.png' if is_folder(path) else Path(path).suffix.lower()
