"""StreamingT2V without APM, the long-term memory: only CAM, and guidance only by the text.

    python train.py --config configs/no_apm.py:small

Data, steps and everything else are as in configs/cam.py, but the stage apm does not follow. configs/add_cond.py and
configs/conc_cond.py are compared with this model.
"""

from ml_collections import ConfigDict

from . import cam


def get_config(arg: str = '') -> ConfigDict:
    config = cam.get_config(arg)
    config.stage = 'no_apm'
    config.model.apm = None
    return config
