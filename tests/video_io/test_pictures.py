"""Folders of pictures are read as a viewer shows them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from st2v_jax.errors import InputError
from st2v_jax.video_io import VideoReader, read_video

RAMP = np.linspace(0, 255, 16).round().astype(np.uint8)[None].repeat(8, 0)
RED = np.full((8, 16, 3), (200, 30, 40), np.uint8)
HALF = np.where(np.arange(16) < 8, 255, 0)[None].repeat(8, 0).astype(np.uint8)  # what shows of it: the left half


def png(grey, bits, transparent=None, size=None):
    """A grey PNG, with one transparent value; size: what it claims."""
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    rows = b''.join(b'\0' + row.astype('>u2' if bits == 16 else 'u1').tobytes() for row in grey)
    header = struct.pack('>IIBBBBB', *(size or grey.shape[::-1]), bits, 0, 0, 0, 0)
    extra = b'' if transparent is None else chunk(b'tRNS', struct.pack('>H', transparent))
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + extra
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )


def saved(picture, ending, **options):
    data = io.BytesIO()
    picture.save(data, ending, **options)
    return data.getvalue()


def turned(way):
    exif = Image.Exif()
    exif[0x112] = way
    return exif


def with_alpha(mode):
    picture = Image.fromarray(np.dstack([RED, HALF]), 'RGBA')
    return picture if mode == 'RGBA' else picture.convert(mode)


GREY = np.stack([RAMP] * 3, -1)
SHOWN = np.where(HALF[..., None] > 0, RED, 0)
CASES = {
    '16 bits': ('png', png(RAMP.astype(int) * 257, 16), GREY),
    '16 bits, one transparent': ('png', png(RAMP.astype(int) * 257, 16, 65535), np.where(GREY == 255, 0, GREY)),
    '8 bits, one transparent': ('png', png(RAMP, 8, 255), np.where(GREY == 255, 0, GREY)),
    '16-bit tif': ('tif', saved(Image.fromarray(RAMP.astype(np.uint16) * 257), 'TIFF'), GREY),
    '1 bit': ('png', saved(Image.fromarray(HALF).convert('1'), 'PNG'), np.stack([HALF] * 3, -1)),
    'palette': ('png', saved(Image.fromarray(RED).quantize(4), 'PNG'), RED),
    'palette with a transparent colour': ('png', saved(with_alpha('RGBA').quantize(4), 'PNG'), SHOWN),
    'grey with alpha': ('png', saved(with_alpha('LA'), 'PNG'), np.where(SHOWN > 0, 82, 0)),
    'colour with alpha': ('png', saved(with_alpha('RGBA'), 'PNG'), SHOWN),
    'webp with alpha': ('webp', saved(with_alpha('RGBA'), 'WEBP', lossless=True, exact=True), SHOWN),
    'transparent rgb': ('png', saved(Image.fromarray(SHOWN | 1), 'PNG', transparency=(201, 31, 41)), 1 - (SHOWN > 0)),
    'upper case': ('PNG', saved(Image.fromarray(RED), 'PNG'), RED),
    'bmp': ('bmp', saved(Image.fromarray(RED), 'BMP'), RED),
    'jpg': ('jpg', saved(Image.fromarray(RED), 'JPEG', quality=98), RED),
    'jpeg in CMYK': ('jpeg', saved(Image.fromarray(RED).convert('CMYK'), 'JPEG', quality=98), RED),
    'tiff in CMYK': ('tiff', saved(Image.fromarray(RED).convert('CMYK'), 'TIFF'), RED),
    'mirrored by EXIF': ('png', saved(Image.fromarray(SHOWN), 'PNG', exif=turned(2)), SHOWN[:, ::-1]),
    'upright by EXIF': (
        'jpg',
        saved(Image.fromarray(SHOWN), 'JPEG', exif=turned(6), quality=98, subsampling=0),
        np.rot90(SHOWN, -1),
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_a_picture_is_read_as_it_is_shown(case, tmp_path):
    ending, data, shown = CASES[case]
    (tmp_path / f'frame.{ending}').write_bytes(data)
    seen = read_video(tmp_path)[0].astype(int)
    assert seen.shape == shown.shape
    lossy = ending in ('jpg', 'jpeg')
    assert (
        np.abs(seen - shown)[:, 2:-2].max() <= (12 if lossy else 1) and np.abs(seen - shown).mean() <= 6 * lossy + 0.1
    )


def test_a_folder_is_one_kind_of_picture_and_nothing_else_in_it_counts(tmp_path):
    for name in ('b10.jpg', 'b9.JPEG', '.b3.jpg', 'notes.txt'):
        (tmp_path / name).write_bytes(saved(Image.new('RGB', (4, 2), (10 * len(name), 0, 0)), 'JPEG'))
    (tmp_path / 'b1.jpg').mkdir()
    assert VideoReader(tmp_path).frames == 2
    Image.new('RGB', (4, 2)).save(tmp_path / 'cover.png')
    with pytest.raises(InputError, match=r'it has 2 \.jpg and 1 \.png; the frames of a video have one ending'):
        VideoReader(tmp_path)


def test_a_folder_without_pictures_says_what_was_looked_for(tmp_path):
    (tmp_path / 'film.mp4').touch()
    with pytest.raises(InputError, match=r'there are no frames in it, which end with \.png, \.jpg, .*\.tiff'):
        VideoReader(tmp_path)


@pytest.mark.parametrize(
    'data, reason',
    [
        (b'', 'cannot identify'),
        (saved(Image.fromarray(RED), 'PNG')[:-30], 'truncated|broken|cut'),
        (png(np.zeros((1, 1)), 8, size=(10_000, 8000)), '8000x10000 pixels are more than'),
        (png(np.zeros((1, 1)), 8, size=(100_000, 90_000)), 'decompression bomb'),
        (saved(Image.fromarray(RAMP.astype(np.float32)), 'TIFF'), 'nothing says which of them is white'),
    ],
)
def test_what_is_no_picture_is_an_input_error(data, reason, tmp_path):
    (tmp_path / 'frame.png').write_bytes(data)
    with pytest.raises(InputError, match=f'frame.png: .*({reason})'):
        VideoReader(tmp_path)
