"""What a study stores of itself beside its numbers, so that a page can say where they come from."""

import datetime
import json
from pathlib import Path

import jax
import jax.numpy as jnp

from st2v_jax.streaming.generate import default_dtype


def network_dtype(name=None):
    """The type that networks compute in, by name; None is that of the device at hand."""
    return jnp.dtype(name or default_dtype()).type


def made(command) -> dict:
    """When, on what and by which command a study was made."""
    return {
        'date': datetime.date.today().isoformat(),
        'device': jax.devices()[0].device_kind,
        'devices': len(jax.devices()),
        'jax': jax.__version__,
        'command': command,
    }


def write(path, results):
    """Writes results as JSON, and the folder it lies in."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
