"""The Refiner: SDEdit from a noised enlarged video back to a sharp one.

    python train.py --config configs/refiner.py:small

Its network starts from scratch.

The small one reaches a loss of 0.109 in 7.4 K steps, two runs and 11 minutes of an H200 in all.

The paper takes MS-Vid2Vid-XL; the full size is that one. What the training pairs are: training/refiner.py.
"""

from . import common


def get_config(arg=''):
    size = common.size_of(arg)
    config = common.encoded(common.run('refiner', 'refiner', size), size)
    config.init.sources = common.sources(size, 'refiner_vae', common.STREAMING, common.REFINER)
    config.init.networks = ('vae', 'refiner_vae', 'refiner_text' if size == 'full' else 'text')
    config.init.carried = ('text', 'image', 'unet', 'cam', 'apm')
    config.source_noise = 0.3  # of the latents that sources are decoded from, at most
    # where SDEdit may begin, so that `start` can be chosen later
    config.starts = (199, {'full': 599, 'small': 499, 'tiny': 599}[size])
    config.dropout = 0.1  # share of examples without their text
    config.schedule.peak = {'full': 5e-5, 'small': 8e-4, 'tiny': 3e-3}[size]
    if size == 'small':
        config.steps = 20_000
        config.max_seconds = 650.0
        config.batch_size = 16
        config.checkpoint_every = 0
        config.data.scenes = 16 * 192
    return config
