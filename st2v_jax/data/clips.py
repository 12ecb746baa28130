"""Clips of real videos in files: samples in ArrayRecord shards, and an index of the shards that are complete.

A record is one line of JSON and, behind it, the frames as JPEG, one after the other:

    {"caption": "...", "file": "boat.mp4", "start": 4.0, "lengths": [9213, 9187, ...]}\\n...

With `--encode` the line also has the shapes "latents" and "text", and these arrays of float16 follow the frames.
`index.json` is written last: a folder without one is not finished.
"""

import io
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from st2v_jax.storage.atomic import write_bytes

INDEX = 'index.json'
QUALITY = 95  # of the JPEG, in full colour resolution: what the autoencoder loses is more
FLOAT = np.dtype('<f2')  # of latents and text embeddings


class Clip:
    """One sample: its frames are decoded when they are asked for. len() is their number."""

    def __init__(self, record):
        head, self._data = record.split(b'\n', 1)
        about = json.loads(head)
        self.caption, self.file, self.start = about['caption'], about['file'], about['start']
        self._ends = np.cumsum([0, *about['lengths']])
        self._about = about

    def __len__(self):
        return len(self._ends) - 1

    def frames(self, numbers):
        """The frames of these numbers, uint8 [n,h,w,3]."""
        jpegs = (self._data[self._ends[number] : self._ends[number + 1]] for number in numbers)
        return np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])

    def latents(self, numbers):
        """The scaled latents of the frames of these numbers, float16 [n,h,w,c], of a clip that was encoded."""
        return self._array('latents', self._ends[-1])[np.asarray(numbers)]

    def text(self):
        """The text embedding of the caption, float16 [77,c], of a clip that was encoded."""
        return self._array('text', self._ends[-1] + FLOAT.itemsize * math.prod(self._about['latents']))

    def _array(self, name, start):
        shape = self._about[name]
        return np.frombuffer(self._data, FLOAT, math.prod(shape), start).reshape(shape).copy()


def record(frames, caption, file, start):
    """The bytes of a sample: frames uint8 [n,h,w,3] from `start` seconds of a file on."""
    jpegs = [_jpeg(frame) for frame in frames]
    about = {'caption': caption, 'file': file, 'start': start, 'lengths': [len(jpeg) for jpeg in jpegs]}
    return json.dumps(about).encode() + b'\n' + b''.join(jpegs)


def with_encoding(record, latents, text):
    """The bytes of a sample together with the latents [n,h,w,c] of its frames and the embedding [77,c] of its text."""
    head, frames = record.split(b'\n', 1)
    about = json.loads(head) | {'latents': latents.shape, 'text': text.shape}
    arrays = [np.asarray(array, FLOAT).tobytes() for array in (latents, text)]
    return b''.join([json.dumps(about).encode(), b'\n', frames, *arrays])


def _jpeg(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, 'JPEG', quality=QUALITY, subsampling=0)
    return file.getvalue()


class Folder:
    """The samples of a folder that st2v prepare-data has finished: len(folder), folder[i] -> Clip.

    encoded: the `encoding.fingerprint` of what made the latents and text embeddings that its clips hold, if they do.

    Raises ValueError where the folder is not finished, or a shard is not what the index says.
    """

    def __init__(self, folder):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        index = read_index(folder)
        files = [Path(folder, name) for name in index['shards']]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise ValueError(f'{missing[0]} is in the index and not there: run st2v prepare-data again')
        self.settings, self.encoded = index['settings'], index.get('encoded')
        self._records = ArrayRecordDataSource([str(file) for file in files])
        if len(self._records) != index['samples']:
            raise ValueError(f'{folder} holds {len(self._records)} samples and not the {index["samples"]} of its index')

    def __len__(self):
        return len(self._records)

    def __getitem__(self, i):
        return Clip(self._records[i])


def read_index(folder):
    """{'settings': dict, 'samples': their number, 'shards': {file: number of samples}} of a finished folder.

    Where clips were encoded, also 'encoded'.
    """
    file = Path(folder, INDEX)
    if not file.is_file():
        what = 'is not finished: run st2v prepare-data again' if file.parent.is_dir() else 'is no folder'
        raise ValueError(f'{folder} {what} (there is no {file})')
    return json.loads(file.read_text('utf-8'))


def write_json(path, values):
    """The file is there whole or not at all."""
    write_bytes(path, (json.dumps(values, indent=1, ensure_ascii=False) + '\n').encode())
