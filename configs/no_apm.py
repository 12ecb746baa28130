"""StreamingT2V without APM, its long-term memory: CAM alone, and guidance by the text alone.

    python train.py --config configs/no_apm.py:small

Data, steps and everything else are those of configs/cam.py, of which it is what is trained: a model in which the stage
apm is never to follow. CAM is compared with configs/add_cond.py and configs/conc_cond.py in this form.
"""

from . import cam


def get_config(arg=''):
    config = cam.get_config(arg)
    config.stage = 'no_apm'
    config.model.apm = None
    return config
