"""Folders of pictures, read as a viewer shows them."""

import os
import re
import warnings
from pathlib import Path

import numpy as np

from st2v_jax.errors import InputError
from st2v_jax.video_io.pixels import MAX_PIXELS, on_black

KINDS = {'.jpeg': '.jpg', '.tiff': '.tif'}  # other spellings of an ending
ENDINGS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')


def pictures_in(folder: str | os.PathLike) -> list[Path]:
    """The pictures of a folder in the order of their numbers; hidden files are left out.

    Raises InputError if there are none, or pictures of several kinds: no order would be the right one.
    """
    files = {}
    for file in Path(folder).iterdir():
        ending = file.suffix.lower()
        if ending in ENDINGS and not file.name.startswith('.') and file.is_file():
            files.setdefault(KINDS.get(ending, ending), []).append(file)
    if not files:
        raise InputError(f'cannot read {folder}: there are no frames in it, which end with {", ".join(ENDINGS)}')
    if len(files) > 1:
        kinds = ' and '.join(f'{len(some)} {ending}' for ending, some in sorted(files.items()))
        raise InputError(f'cannot read {folder}: it has {kinds}; the frames of a video have one ending')
    (found,) = files.values()
    return sorted(found, key=_number)


def _number(file):
    """Sorts frame9 before frame10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', file.name)], file.name


def read_picture(file: str | os.PathLike) -> np.ndarray:
    """A picture as uint8 [h, w, 3]: 16 bits scaled to 8, turned as its EXIF data say, transparency over black.

    Raises InputError if it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f'{picture.height}x{picture.width} pixels are more than {MAX_PIXELS}')
                return _rgb(ImageOps.exif_transpose(picture))
    except Exception as error:  # Pillow raises errors of many kinds for damaged files
        raise InputError(f'cannot read {file}: {error or type(error).__name__}') from error


def _rgb(picture):
    if picture.mode.startswith('I;16'):
        grey = np.asarray(picture)
        hidden = grey == picture.info.get('transparency', -1)
        grey = np.where(hidden, 0, np.round(grey / 257)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    if picture.mode in ('I', 'F'):
        raise ValueError('its numbers have 32 bits, and nothing says which of them is white')
    if picture.has_transparency_data:
        return on_black(np.asarray(picture.convert('RGBA')))
    return np.asarray(picture.convert('RGB'))
