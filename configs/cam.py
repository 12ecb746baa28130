"""CAM, the short-term memory. The Video-LDM is frozen; CAM learns to continue the first 8 frames of a chunk.

    python train.py --config configs/cam.py:small

Autoencoder, text tower and UNet come from the Video-LDM. CAM starts as a copy of the UNet's encoder, even if there is a
trained CAM next to them.

The small model reaches a loss of 0.081 in 3 K steps of batch 64, 5 minutes on an H200.

The full size is as in the paper: batch 8, learning rate 5e-5, 400 K steps.
"""

from ml_collections import ConfigDict

from . import common


def get_config(arg: str = '') -> ConfigDict:
    size = common.size_of(arg)
    config = common.denoising('cam', size)
    config.init.sources = common.sources(size, 'video_ldm', common.VIDEO_LDM)
    config.init.networks = ('vae', 'text', 'unet')
    config.init.carried = ('image',)
    config.memory = True
    config.trained = r'cam/.*'
    config.schedule.peak = {'full': 5e-5, 'small': 7e-4, 'tiny': 3e-3}[size]
    if size == 'small':
        config.steps = 3_000
        config.batch_size = 64
        config.checkpoint_every = 0
        config.conditioning_noise = 0.15
        config.data.scenes = 64 * 128
    return config
