"""Add-Cond, an ablation of CAM: features are added to the skip connections after zero convolutions, without attention.

    python train.py --config configs/add_cond.py:small

E_cond receives the frames of the whole chunk and a mask of those that are given. Data, steps and everything else are as
in configs/cam.py. There is no APM.
"""

from ml_collections import ConfigDict

from . import no_apm


def get_config(arg: str = '') -> ConfigDict:
    config = no_apm.get_config(arg)
    config.stage = 'add_cond'
    config.model.cam.fusion = 'addition'
    return config
