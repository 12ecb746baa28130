"""The autoencoder of the Refiner, on frames of the Refiner's size.

    python train.py --config configs/refiner_vae.py:small

The small model starts as the autoencoder for 128 pixels, which reaches 30.1 dB at 256 pixels and draws double outlines.
It reaches 40.7 dB after 2.2 K steps, two minutes on an H200.

The released Refiner uses the autoencoder of Stable Diffusion. At the end of a run, the scale factor of the latents is
measured.
"""

from ml_collections import ConfigDict

from . import common


def get_config(arg: str = '') -> ConfigDict:
    size = common.size_of(arg)
    config = common.autoencoder('refiner_vae', 'refiner_vae', size)
    config.init.sources = common.sources(size, 'apm', common.STREAMING)
    config.init.networks = ('vae',)
    config.init.carried = ('text', 'image', 'unet', 'cam', 'apm')
    if size == 'small':
        config.steps = 20_000
        config.max_seconds = 120.0
        config.batch_size = 24
        config.checkpoint_every = 0
        config.schedule.peak = 5e-4
        config.data.scenes = 24 * 4096
    return config
