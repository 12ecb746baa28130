"""What a video starts from, a clip or a picture, read at a model's size and frame rate."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from st2v_jax.errors import InputError
from st2v_jax.video_io.pictures import ENDINGS, read_picture
from st2v_jax.video_io.reader import VideoReader

SMALLEST = 16  # pixels of a side: less shows nothing
MAX_BYTES = 2**30  # of a clip, which is kept in memory


class Start(NamedTuple):
    """What a video starts from, uint8 at the model's size.

    Attributes:
      frames: [n, H, W, 3] of a clip; [1, H, W, 3] of a picture.
      anchor: [H, W, 3] what the long-term memory keeps after a clip; None is its first frame.
      is_picture: whether the first chunk begins with the frame; otherwise the video goes on after the frames.
      notes: lines about what was guessed or changed.
    """

    frames: np.ndarray
    anchor: np.ndarray | None = None
    is_picture: bool = False
    notes: tuple[str, ...] = ()


def shows_picture(path: str | os.PathLike) -> bool:
    """Whether a path is that of a picture by its ending; any other file, and a folder, is a clip."""
    return Path(path).suffix.lower() in ENDINGS and not os.path.isdir(path)


def read_start(
    path: str | os.PathLike,
    size: tuple[int, int],
    *,
    fps: float,
    memory: int,
    anchor: str | os.PathLike | None = None,
    crop: bool = False,
) -> Start:
    """Reads what a video starts from.

    Args:
      path: a picture, or a clip as for VideoReader, which is resampled by its times.
      size: (height, width) wanted, see `fitted`.
      fps: frames per second wanted of a clip.
      memory: the fewest frames that a clip may have.
      anchor: a picture that stands for the first frame of a clip in the long-term memory.
      crop: as for `fitted`.

    Raises:
      InputError: for what cannot be read, is too short, too long or too small.
    """
    if shows_picture(path):
        return Start(_picture(path, size, crop)[None], is_picture=True)
    kept = None if anchor is None else _picture(anchor, size, crop)
    clip = VideoReader(path, fps)
    _check_size(path, clip.size)
    if clip.frames < memory:
        raise InputError(
            f'{path} has {clip.frames} frames at {fps:g} per second, and a video goes on from at least {memory}'
        )
    longest = MAX_BYTES // (3 * size[0] * size[1])
    if clip.frames > longest:
        raise InputError(
            f'{path} has {clip.frames} frames at {fps:g} per second; at {size[0]}x{size[1]} at most {longest} are kept'
        )
    frames = np.stack([fitted(frame, size, crop=crop) for piece in clip for frame in piece])
    return Start(frames, kept, notes=tuple(f'{path}: {note}' for note in clip.notes))


def fitted(frame: np.ndarray, size: tuple[int, int], *, crop: bool = False) -> np.ndarray:
    """A frame uint8 [h, w, 3] as [H, W, 3] with the aspect that it has; one of the right size is returned as it is.

    It is made as large as fits, in the middle of black; with `crop` as large as fills, and its borders are cut off.
    """
    from PIL import Image

    if frame.shape[:2] == tuple(size):
        return frame
    image, scales = Image.fromarray(frame), [wanted / side for wanted, side in zip(size, frame.shape)]
    if crop:
        seen = [wanted / max(scales) for wanted in size]  # of the frame, in its own pixels
        top, left = ((side - part) / 2 for side, part in zip(frame.shape, seen))
        box = (left, top, left + seen[1], top + seen[0])
        return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC, box))
    height, width = (max(1, round(side * min(scales))) for side in frame.shape[:2])
    top, left = ((wanted - side) // 2 for wanted, side in zip(size, (height, width)))
    out = np.zeros((*size, 3), np.uint8)
    out[top : top + height, left : left + width] = image.resize((width, height), Image.Resampling.BICUBIC)
    return out


def _picture(path, size, crop):
    if not shows_picture(path):
        raise InputError(f'{path} is not a picture: these end with {", ".join(ENDINGS)}')
    picture = read_picture(path)
    _check_size(path, picture.shape[:2])
    return fitted(picture, size, crop=crop)


def _check_size(path, size):
    if min(size) < SMALLEST:
        raise InputError(f'{path} has {size[0]}x{size[1]} pixels; a start has at least {SMALLEST} in each direction')
