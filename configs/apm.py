"""CAM and APM together, the long-term memory: an anchor frame of the chunk before joins the text.

    python train.py --config configs/apm.py:small

All but APM, which starts from scratch, comes from the stage cam, or where that was not run from the published model.

The small one reached a loss of 0.049 in 9.8 K steps and three runs: docs/small-model.md. One run of that many takes 12
minutes of an H200.

The full size is the paper's stage: 1 K steps on samples of 32 frames; the temporal layers of the main branch are
frozen, as are the CLIP towers.
"""

from . import common


def get_config(arg=''):
    size = common.size_of(arg)
    config = common.denoising('apm', size)
    config.init.sources = common.sources(size, 'cam', common.STREAMING)
    config.init.networks = ('vae', 'text', 'image', 'unet', 'cam')
    config.memory = True
    config.anchor = True
    config.trained = r'(unet|cam|apm)/.*'
    config.frozen = r'unet/.*(temp_convs|temp_attentions|transformer_in)/.*'
    config.schedule.peak = {'full': 5e-5, 'small': 8e-4, 'tiny': 3e-3}[size]
    if size == 'full':
        config.steps = 1_000
        config.checkpoint_every = 500
    if size == 'small':
        # First chunks come from the same UNet without memory and anchor, so all of it stays as it is.
        config.frozen = r'unet/.*'
        config.steps = 20_000
        config.max_seconds = 720.0
        config.batch_size = 64
        config.checkpoint_every = 0
        config.conditioning_noise = 0.15
        config.data.scenes = 64 * 128
        config.data.frames = 48  # more windows than one from each scene
    return config
