"""The frame-wise autoencoder, on frames of the small world.

    python train.py --config configs/autoencoder.py:small

The small one reaches 36.4 dB in 11 K steps, 4.5 minutes of an H200.

The paper takes Stable Diffusion's; the full size is that one. It ends by measuring the latents' scale factor.
"""

from . import common


def get_config(arg=''):
    size = common.size_of(arg)
    config = common.autoencoder('autoencoder', 'vae', size)
    if size == 'small':
        config.steps = 20_000
        config.max_seconds = 300.0
        config.batch_size = 96
        config.checkpoint_every = 0
        config.data.scenes = 96 * 1024
    return config
