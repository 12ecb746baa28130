"""The Video-LDM: 16 frames from a text, the base model and the first chunk of every video.

    python train.py --config configs/video_ldm.py:small

It takes the autoencoder and the text tower of the stages before; the UNet starts from scratch.

The small one that ships reached a loss of 0.125 (v-prediction) in 11 K steps and four runs, the last of 2.6 K with its
text tower: docs/small-model.md. One run of that many takes 20 minutes of an H200. The loss was still falling.

The paper takes ModelScope's text-to-video 1.7B; the full size is that one.
"""

from . import common


def get_config(arg=''):
    size = common.size_of(arg)
    config = common.denoising('video_ldm', size)
    config.init.sources = common.sources(size, 'clip', common.VIDEO_LDM)
    config.init.networks = ('vae', 'text')
    config.init.carried = ('image',)
    config.schedule.peak = {'full': 5e-5, 'small': 1e-3, 'tiny': 3e-3}[size]
    if size != 'full':
        # Our text tower learnt from single frames, which do not show which way a thing moves: it learns that here.
        config.trained = r'(unet|text)/.*'
    if size == 'small':
        config.steps = 40_000
        config.max_seconds = 1200.0
        config.batch_size = 128
        config.checkpoint_every = 0
        config.data.scenes = 128 * 256
    return config
