"""What a browser sends to start from: known by its first bytes, whatever it is called, before any decoder sees it."""

from pathlib import Path

from st2v_jax.errors import InputError
from st2v_jax.video_io.pictures import ENDINGS as PICTURES

CLIPS = ('.mp4', '.m4v', '.mov', '.webm', '.mkv', '.avi', '.gif')
# What files begin with, by their endings: (how many bytes come before, the bytes)
BEGINNINGS = {
    ('.mp4', '.m4v', '.mov'): ((4, b'ftyp'), (4, b'moov'), (4, b'wide'), (4, b'mdat'), (4, b'free')),
    ('.webm', '.mkv'): ((0, b'\x1a\x45\xdf\xa3'),),
    ('.avi',): ((8, b'AVI '),),
    ('.gif',): ((0, b'GIF8'),),
    ('.png',): ((0, b'\x89PNG\r\n\x1a\n'),),
    ('.jpg', '.jpeg'): ((0, b'\xff\xd8\xff'),),
    ('.webp',): ((8, b'WEBP'),),
    ('.bmp',): ((0, b'BM'),),
    ('.tif', '.tiff'): ((0, b'II*\x00'), (0, b'MM\x00*')),
}


def check_upload(path: str | Path, max_bytes: int) -> None:
    """Raises InputError for a file that is too large, or not the clip or the picture that its name says.

    Playlists and scripts are no clips here: a decoder would follow them to other files of this machine.
    """
    name, ending = Path(path).name, Path(path).suffix.lower()
    if ending not in (*CLIPS, *PICTURES):
        raise InputError(f'{name} is neither a clip nor a picture: these end with {", ".join((*CLIPS, *PICTURES))}')
    size = Path(path).stat().st_size
    if size > max_bytes:
        raise InputError(f'{name} has {size / 1e6:.1f} MB, and {max_bytes / 1e6:.0f} MB are taken at most')
    with open(path, 'rb') as file:
        head = file.read(16)
    (beginnings,) = (marks for endings, marks in BEGINNINGS.items() if ending in endings)
    if not any(head[at:].startswith(mark) for at, mark in beginnings):
        raise InputError(f'{name} is not what its ending says, or it is damaged')
