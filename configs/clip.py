"""The two towers of CLIP, on frames of the small world and their captions.

    python train.py --config configs/clip.py:small

The autoencoder is carried along for later stages.

The small model finds the caption of a frame among 512 in 93 % of cases, after 8 K steps, 2 minutes on an H200.

The paper uses OpenCLIP ViT-H/14. The towers trained here know only the words of the small world.
"""

from ml_collections import ConfigDict

from . import common


def get_config(arg: str = '') -> ConfigDict:
    size = common.size_of(arg)
    config = common.run('clip', 'contrastive', size)
    config.init.sources = common.sources(size, 'autoencoder')
    config.init.carried = ('vae',)
    config.data.captions = 2  # captions of each scene
    config.schedule.peak = {'full': 5e-4, 'small': 1e-3, 'tiny': 3e-3}[size]
    if size != 'tiny':
        config.batch_size = 512
        config.data.scenes = 512 * 64
    if size == 'full':
        config.model.text.embed_dim = 1024  # the text tower of the denoiser has no projection
    if size == 'small':
        config.steps = 8_000
        config.max_seconds = 240.0
        config.checkpoint_every = 0
    return config
