"""Conc-Cond, an ablation of CAM: the UNet receives noisy latents, latents of the given frames, and a mask as channels.

    python train.py --config configs/conc_cond.py:small

Only the UNet can learn to use these channels, so it is trained. First chunks are still made by the UNet that the stage
starts from. Data, steps and everything else are as in configs/cam.py. There is no APM.
"""

from ml_collections import ConfigDict

from . import no_apm


def get_config(arg: str = '') -> ConfigDict:
    config = no_apm.get_config(arg)
    config.stage = 'conc_cond'
    config.model.cam.fusion = 'concatenation'
    config.model.initial = True
    config.trained = r'(unet|cam)/.*'
    return config
