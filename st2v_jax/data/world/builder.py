"""The world as a tensorflow-datasets builder, which writes array_record files that are read without TensorFlow.

    builder = World(data_dir='data', config='clips_128', file_format='array_record')
    builder.download_and_prepare()
    clip = builder.as_data_source('train')[0]  # {'frames': uint8 [f, 128, 128, 3], 'caption': str, ...}

The splits are train and held_out; the latter has combinations of attributes that do not occur in training.
"""

import dataclasses

import jax
import numpy as np
import tensorflow_datasets as tfds

from st2v_jax.data import world
from st2v_jax.video_io import to_uint8


@dataclasses.dataclass
class WorldConfig(tfds.core.BuilderConfig):
    """Which videos of the world are written, and their size.

    Attributes:
      seed: of the world.
      videos: number of videos in the split train.
      held_out_videos: number of videos in the split held_out.
      frames: of a video.
      size: pixels of a side.
      variant: wording of the captions.
    """

    seed: int = 0
    videos: int = 1000
    held_out_videos: int = 100
    frames: int = 48
    size: int = 128
    variant: int = 0


class World(tfds.core.GeneratorBasedBuilder):
    """Procedural videos of one or two moving objects, with captions and attributes.

    Each row of 'objects' is one object, from left to right; where a scene has one object, the second row is -1.
    """

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [
        WorldConfig(name='clips_128', description='Clips of 48 frames'),
        WorldConfig(name='long_128', description='Long videos', videos=16, held_out_videos=16, frames=1200),
    ]

    def _info(self):
        config = self.builder_config
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    'frames': tfds.features.Tensor(shape=(config.frames, config.size, config.size, 3), dtype=np.uint8),
                    'caption': tfds.features.Text(),
                    'index': np.int32,
                    'objects': tfds.features.Tensor(shape=(2, 4), dtype=np.int32, doc='colour, shape, pattern, motion'),
                    'background': tfds.features.ClassLabel(names=list(world.BACKGROUNDS)),
                    'camera': tfds.features.ClassLabel(names=list(world.CAMERAS)),
                    'centres': tfds.features.Tensor(
                        shape=(config.frames, 2, 2), dtype=np.float32, doc='x, y in pixels'
                    ),
                }
            ),
            supervised_keys=None,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        counts = {'train': self.builder_config.videos, 'held_out': self.builder_config.held_out_videos}
        return {split: self._generate_examples(split, count) for split, count in counts.items()}

    def _generate_examples(self, split, count):
        config = self.builder_config
        frames = np.arange(config.frames)
        for index in world.split_indices(split, config.seed, 0, count):
            scene = jax.device_get(world.scene(config.seed, index))
            objects = np.stack([scene.colour, scene.shape, scene.pattern, scene.motion], axis=-1)
            objects[scene.count :] = -1
            yield (
                int(index),
                {
                    'frames': to_uint8(world.render(scene, frames, config.size)),
                    'caption': world.caption(scene, config.variant),
                    'index': index,
                    'objects': objects,
                    'background': int(scene.background),
                    'camera': int(scene.camera),
                    'centres': np.asarray(world.truth(scene, frames, config.size)['centres']),
                },
            )
