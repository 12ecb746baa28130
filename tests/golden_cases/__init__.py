"""Golden cases: inputs and outputs recorded from the original modules, which our code must reproduce.

A case is a folder `g5_streaming` with config.json, io.npz and mostly weights.safetensors. The function
`check_g5(folder)` of any module here runs it and returns {what: (error, tolerance)}; errors are ||a - b|| / ||b||
unless their name says otherwise. Everything about a case is read from its folder.
"""

import contextvars
import importlib
import json
import os
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from st2v_jax.models import build

_DTYPE = contextvars.ContextVar('dtype')


def folder() -> Path:
    """$ST2V_GOLDEN, or the cases beside the tests."""
    return Path(os.environ.get('ST2V_GOLDEN') or Path(__file__).parents[1] / 'golden')


def cases(folder: Path) -> list[Path]:
    """The case folders in `folder` by their numbers; [] if it does not exist."""
    number = lambda case: int('0' + re.match(r'\D*(\d*)', case.name)[1])
    return sorted((path.parent for path in folder.glob('*/config.json')), key=lambda case: (number(case), case.name))


def check(case: Path, dtype=jnp.float32) -> dict[str, tuple[float, float]] | None:
    """{what: (error, tolerance)} of one case, or None if no function handles it.

    dtype: what networks compute in. Tolerances are for float32, which has products in full precision.
    """
    name = f'check_{case.name.split("_")[0]}'
    for module in pkgutil.iter_modules(__path__):
        handler = getattr(importlib.import_module(f'{__name__}.{module.name}'), name, None)
        if handler is not None:
            token = _DTYPE.set(dtype)
            try:
                with jax.default_matmul_precision('highest'):
                    return handler(case)
            finally:
                _DTYPE.reset(token)
    return None


def network(module, *args) -> build.Network:
    """`build.network` in the dtype of the check that is being made."""
    return build.network(module, *args, dtype=_DTYPE.get(jnp.float32))


def config(case: Path) -> dict:
    """The constructor arguments that the case was recorded with."""
    return json.loads((case / 'config.json').read_text())['config']


def arrays(case: Path) -> dict[str, np.ndarray]:
    """Inputs and outputs, in torch's layouts."""
    with np.load(case / 'io.npz') as stored:
        return dict(stored)


def weights(case: Path) -> dict[str, np.ndarray]:
    """Tensors under their published names, in torch's layouts."""
    return load_file(case / 'weights.safetensors')


def relative(ours, theirs) -> float:
    """||ours - theirs|| / ||theirs||, in float64."""
    ours, theirs = (np.asarray(a, np.float64) for a in (ours, theirs))
    if ours.shape != theirs.shape:
        raise ValueError(f'shapes differ: ours {ours.shape}, theirs {theirs.shape}')
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
