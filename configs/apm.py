"""CAM and APM together. APM is the long-term memory: the anchor frame conditions the UNet together with the text.

    python train.py --config configs/apm.py:small

APM starts from scratch. The other networks come from the stage cam or, if that was not run, from the published model.

The small model was trained in several runs: docs/small-model.md. In the last of them the UNet was trained too, with a
quarter of the examples as first chunks are: it reached a loss of 0.058 in 2.9 K steps, 15 minutes on an H200.

The full size is as in the paper: 1 K steps on clips of 32 frames; the temporal layers of the main branch and the CLIP
towers are frozen.
"""

from ml_collections import ConfigDict

from . import common


def get_config(arg: str = '') -> ConfigDict:
    size = common.size_of(arg)
    config = common.denoising('apm', size)
    config.init.sources = common.sources(size, 'cam', common.STREAMING)
    config.init.networks = ('vae', 'text', 'image', 'unet', 'cam')
    config.memory = True
    config.anchor = True
    config.trained = r'(unet|cam|apm)/.*'
    config.frozen = r'unet/.*(temp_convs|temp_attentions|transformer_in)/.*'
    config.schedule.peak = {'full': 5e-5, 'small': 4e-4, 'tiny': 3e-3}[size]
    if size == 'full':
        config.steps = 1_000
        config.checkpoint_every = 500
    if size == 'small':
        # All of the UNet learns to use the memory. It makes first chunks too, so some examples are as those are.
        config.frozen = r''
        config.plain = 4
        config.steps = 20_000
        config.max_seconds = 720.0
        config.batch_size = 64
        config.checkpoint_every = 0
        config.conditioning_noise = 0.15
        config.data.scenes = 64 * 128
        config.data.frames = 48  # so that each scene gives more than one window
    return config
