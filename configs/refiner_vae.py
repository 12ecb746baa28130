"""The Refiner's autoencoder, on frames as large as the Refiner's.

    python train.py --config configs/refiner_vae.py:small

The small one starts as the autoencoder of 128 pixels, which at 256 reaches 30.1 dB and draws double outlines; it
ends at 40.7 dB after 2.2 K steps, two minutes of an H200.

The released Refiner comes with Stable Diffusion's. It ends by measuring the latents' scale factor.
"""

from . import common


def get_config(arg=''):
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
