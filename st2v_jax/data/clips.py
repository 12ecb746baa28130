"""Clips of real videos in files: ArrayRecord shards, and an index of the shards.

A record is one line of JSON, followed by the frames as JPEG files, one after the other:

    {"caption": "...", "file": "boat.mp4", "start": 4.0, "lengths": [9213, 9187, ...]}\\n...

With `--encode` the line also has the shapes "latents" and "text", and these float16 arrays follow the frames.
`index.json` is written last: a folder without one is not finished.
"""

import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from st2v_jax.storage.atomic import write_bytes
from st2v_jax.storage.buckets import check, is_address, located
from st2v_jax.storage.text import read_object

INDEX = 'index.json'
QUALITY = 95  # of the JPEG files, in full colour resolution: the autoencoder loses more than they do
FLOAT = np.dtype('<f2')  # type of latents and text embeddings


class Clip:
    """One clip, whose frames are decoded on demand; len(clip) is their number."""

    def __init__(self, record):
        head, self._data = record.split(b'\n', 1)
        about = json.loads(head)
        self.caption, self.file, self.start = about['caption'], about['file'], about['start']
        self._ends = np.cumsum([0, *about['lengths']])
        self._about = about

    def __len__(self):
        return len(self._ends) - 1

    def frames(self, numbers: Iterable[int]) -> np.ndarray:
        """The frames with these numbers, uint8 [n, h, w, 3]."""
        jpegs = (self._data[self._ends[number] : self._ends[number + 1]] for number in numbers)
        return np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])

    def latents(self, numbers: Iterable[int]) -> np.ndarray:
        """The scaled latents of the frames with these numbers, float16 [n, h, w, c]; only for encoded clips."""
        return self._array('latents', self._ends[-1])[np.asarray(numbers)]

    def text(self) -> np.ndarray:
        """The text embedding of the caption, float16 [77, c]; only for encoded clips."""
        return self._array('text', self._ends[-1] + FLOAT.itemsize * math.prod(self._about['latents']))

    def _array(self, name, start):
        shape = self._about[name]
        return np.frombuffer(self._data, FLOAT, math.prod(shape), start).reshape(shape).copy()


def record(frames: np.ndarray, caption: str, file: str, start: float) -> bytes:
    """The record of a clip: frames uint8 [n, h, w, 3] of a file, from `start` seconds on."""
    jpegs = [_jpeg(frame) for frame in frames]
    about = {'caption': caption, 'file': file, 'start': start, 'lengths': [len(jpeg) for jpeg in jpegs]}
    return json.dumps(about).encode() + b'\n' + b''.join(jpegs)


def with_encoding(record: bytes, latents: np.ndarray, text: np.ndarray) -> bytes:
    """The record with the latents [n, h, w, c] of its frames and the embedding [77, c] of its caption added."""
    head, frames = record.split(b'\n', 1)
    about = json.loads(head) | {'latents': latents.shape, 'text': text.shape}
    arrays = [np.asarray(array, FLOAT).tobytes() for array in (latents, text)]
    return b''.join([json.dumps(about).encode(), b'\n', frames, *arrays])


def _jpeg(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, 'JPEG', quality=QUALITY, subsampling=0)
    return file.getvalue()


class Folder:
    """The clips of a folder that st2v prepare-data has finished: len(folder), folder[i] -> Clip.

    Raises ValueError if the folder is not finished, or a shard does not match the index.

    Attributes:
      settings: the `prepare.Settings` of the clips, as a dict.
      encoded: the `encoding.fingerprint` of the networks that encoded the clips, or None.
    """

    def __init__(self, folder):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        index = read_index(folder)
        files = [located(folder) / name for name in index['shards']]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise ValueError(f'{missing[0]} is in the index but missing: run st2v prepare-data again')
        self.settings, self.encoded = index['settings'], index.get('encoded')
        self._records = ArrayRecordDataSource([str(file) for file in files])
        if len(self._records) != index['samples']:
            raise ValueError(f'{folder} holds {len(self._records)} clips, but its index lists {index["samples"]}')

    def __len__(self):
        return len(self._records)

    def __getitem__(self, i):
        return Clip(self._records[i])


def read_index(folder: str | Path) -> dict[str, Any]:
    """The index of a finished folder.

    Returns:
      'settings', a dict; 'samples', the number of clips; 'shards', {file: number of clips}; and 'encoded' if the clips
      were encoded.
    """
    if is_address(folder):
        check(folder)
    file = located(folder) / INDEX
    if not file.is_file():
        what = 'is not finished: run st2v prepare-data again' if file.parent.is_dir() else 'is not a folder'
        raise ValueError(f'{folder} {what} (there is no {file})')
    index = read_object(file)
    lacking = [name for name in ('settings', 'samples', 'shards') if name not in index]
    if lacking:
        raise ValueError(f'{file} is not an index of st2v prepare-data: {", ".join(lacking)} missing')
    return index


def write_json(path: str | Path, values: Any) -> None:
    """Writes a JSON file completely or not at all."""
    write_bytes(path, (json.dumps(values, indent=1, ensure_ascii=False) + '\n').encode())
