"""The Video-LDM: 16 frames from a text. It is the base model and makes the first chunk of every video.

    python train.py --config configs/video_ldm.py:small

Autoencoder and text tower come from earlier stages; the UNet starts from scratch.

The small model that ships reached a loss of 0.125 (v-prediction) in 11 K steps, in four runs; the last one, of 2.6 K
steps, also trained the text tower: docs/small-model.md. As one run, this takes 20 minutes on an H200. The loss was
still falling.

The full size is ModelScope's text-to-video 1.7B, which the paper uses.
"""

from ml_collections import ConfigDict

from . import common


def get_config(arg: str = '') -> ConfigDict:
    size = common.size_of(arg)
    config = common.denoising('video_ldm', size)
    config.init.sources = common.sources(size, 'clip', common.VIDEO_LDM)
    config.init.networks = ('vae', 'text')
    config.init.carried = ('image',)
    config.schedule.peak = {'full': 5e-5, 'small': 1e-3, 'tiny': 3e-3}[size]
    if size != 'full':
        # Our text tower was trained on single frames, which do not show how an object moves; it learns that here.
        config.trained = r'(unet|text)/.*'
    if size == 'small':
        config.steps = 40_000
        config.max_seconds = 1200.0
        config.batch_size = 128
        config.checkpoint_every = 0
        config.data.scenes = 128 * 256
    return config
