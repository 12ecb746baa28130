"""Conc-Cond, an ablation of CAM: the UNet's first convolution takes [noisy latent, latent of the given frames, mask].

    python train.py --config configs/conc_cond.py:small

There is nothing to learn it but the UNet, so that is trained; the UNet that the stage starts from still draws first
chunks. Data, steps and everything else are those of configs/cam.py; like that stage it has no APM.
"""

from . import no_apm


def get_config(arg=''):
    config = no_apm.get_config(arg)
    config.stage = 'conc_cond'
    config.model.cam.fusion = 'concatenation'
    config.model.initial = True
    config.trained = r'(unet|cam)/.*'
    return config
