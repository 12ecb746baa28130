"""Add-Cond, an ablation of CAM: features join the skip connections by zero convolutions and addition, not attention.

    python train.py --config configs/add_cond.py:small

The conditioning frames and a mask of those that are given are the input of E_cond, so its extractor sees all frames of
the chunk. Data, steps and everything else are those of configs/cam.py; like that stage it has no APM.
"""

from . import no_apm


def get_config(arg=''):
    config = no_apm.get_config(arg)
    config.stage = 'add_cond'
    config.model.cam.fusion = 'addition'
    return config
