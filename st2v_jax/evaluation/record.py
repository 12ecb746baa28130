"""What a study stores besides its numbers, so that a page can say where they come from."""

import datetime
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from st2v_jax.devices import default_dtype
from st2v_jax.storage.atomic import write_bytes


def network_dtype(name: str | None = None) -> type:
    """The type that networks compute in, by name; None takes that of this device."""
    return jnp.dtype(name or default_dtype()).type


def made(command: str) -> dict[str, Any]:
    """When a study was made, on which device and by which command."""
    return {
        'date': datetime.date.today().isoformat(),
        'device': jax.devices()[0].device_kind,
        'devices': len(jax.devices()),
        'jax': jax.__version__,
        'command': command,
    }


def write(path: str | Path, results: dict[str, Any]) -> None:
    """Writes results as JSON; creates the folder if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(results, indent=1) + '\n').encode())
