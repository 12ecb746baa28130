"""The Refiner: SDEdit from an enlarged video with noise to a sharp one.

    python train.py --config configs/refiner.py:small

The network starts from scratch.

The small model reaches a loss of 0.109 in 7.4 K steps, in two runs, 11 minutes on an H200 in all.

The full size is MS-Vid2Vid-XL, which the paper uses. The training pairs are described in st2v_jax/training/refiner.py.
"""

from ml_collections import ConfigDict

from . import common


def get_config(arg: str = '') -> ConfigDict:
    size = common.size_of(arg)
    config = common.encoded(common.run('refiner', 'refiner', size), size)
    config.init.sources = common.sources(size, 'refiner_vae', common.STREAMING, common.REFINER)
    config.init.networks = ('vae', 'refiner_vae', 'refiner_text' if size == 'full' else 'text')
    config.init.carried = ('text', 'image', 'unet', 'cam', 'apm')
    config.source_noise = 0.3  # largest noise in the latents that the enlarged videos are decoded from
    # noise levels where SDEdit may start, so that `start` can be chosen later
    config.starts = (199, {'full': 599, 'small': 499, 'tiny': 599}[size])
    config.dropout = 0.1  # share of examples without text
    config.schedule.peak = {'full': 5e-5, 'small': 8e-4, 'tiny': 3e-3}[size]
    if size == 'small':
        config.steps = 20_000
        config.max_seconds = 650.0
        config.batch_size = 16
        config.checkpoint_every = 0
        config.data.scenes = 16 * 192
    return config
