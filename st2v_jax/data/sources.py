"""Sources of clips, by name: a folder of st2v prepare-data, or a dataset of tensorflow-datasets.

A source has len(source) and source[i], a clip. A clip has a caption, len(clip) and clip.frames(numbers), uint8
[n, h, w, 3]. If source.encoded is not None, a clip also has clip.latents(numbers) and clip.text(), see clips.py.
"""

from collections.abc import Iterable

import numpy as np

from st2v_jax.data import clips
from st2v_jax.storage.buckets import located

TFDS = 'tfds:'


def open_source(name: str, folder: str = '', split: str = 'train') -> 'clips.Folder | Dataset':
    """Opens a source.

    Args:
      name: the path of a folder of clips, its address in a bucket, or 'tfds:NAME'.
      folder: where tensorflow-datasets keeps its data.
      split: of that dataset.

    Raises ValueError if there is no such source.
    """
    if name.startswith(TFDS):
        return Dataset(name.removeprefix(TFDS), folder, split)
    return clips.Folder(located(name))


class Dataset:
    """The clips of a dataset that has exactly one video feature and one text feature, read without TensorFlow.

    The dataset must have been built with file_format='array_record'. A video is a uint8 feature of shape
    [frames, height, width, 3].
    """

    encoded = None

    def __init__(self, name, folder, split):
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder(name, data_dir=folder or None)
            self._examples = builder.as_data_source(split)
        except Exception as error:  # an unknown name, missing data, a format that needs TensorFlow
            raise ValueError(f'{TFDS}{name}, split {split}: {str(error).strip().splitlines()[0]}') from error
        features = builder.info.features
        videos = [
            key
            for key, feature in features.items()
            if len(feature.shape or ()) == 4 and feature.shape[-1] == 3 and feature.np_dtype == np.uint8
        ]
        self._video = _only(name, 'video', videos)
        texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
        self._caption = _only(name, 'text', texts)

    def __len__(self):
        return len(self._examples)

    def __getitem__(self, i):
        example = self._examples[i]
        caption = example[self._caption]
        return ClipInMemory(example[self._video], caption.decode() if isinstance(caption, bytes) else caption)


def _only(name, kind, keys):
    if len(keys) != 1:
        raise ValueError(f'{TFDS}{name} has {len(keys)} {kind} features instead of one: {", ".join(keys)}')
    return keys[0]


class ClipInMemory:
    """A clip whose frames [t, h, w, 3] are in memory."""

    def __init__(self, frames, caption):
        self._frames, self.caption = frames, caption

    def __len__(self):
        return len(self._frames)

    def frames(self, numbers: Iterable[int]) -> np.ndarray:
        """The frames with these numbers, uint8 [n, h, w, 3]."""
        return self._frames[np.asarray(numbers)]
