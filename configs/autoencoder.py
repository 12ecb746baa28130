"""The frame-wise autoencoder, on frames of the small world.

    python train.py --config configs/autoencoder.py:small

The small model reaches 36.4 dB in 11 K steps, 4.5 minutes on an H200.

The full size is the autoencoder of Stable Diffusion, which the paper uses. At the end of a run, the scale factor of the
latents is measured.
"""

from ml_collections import ConfigDict

from . import common


def get_config(arg: str = '') -> ConfigDict:
    size = common.size_of(arg)
    config = common.autoencoder('autoencoder', 'vae', size)
    if size == 'small':
        config.steps = 20_000
        config.max_seconds = 300.0
        config.batch_size = 96
        config.checkpoint_every = 0
        config.data.scenes = 96 * 1024
    return config
