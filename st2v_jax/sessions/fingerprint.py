"""What the bits of a chunk depend on besides its inputs: the weights, and the programs that compute it."""

import functools
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jaxlib

from st2v_jax import __version__, devices, stopping
from st2v_jax.open_model import OpenModel
from st2v_jax.weights.folder import Folder

BLOCK = 1 << 22  # bytes that are hashed at a time


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, the same for equal values."""
    text = json.dumps(value, sort_keys=True, separators=(',', ':'), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_weights(opened: OpenModel, known: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What identifies the weights of the streaming stage, and what there is to remember of their files.

    Args:
      opened: the model.
      known: what an earlier call gave to remember, {path: {'size', 'mtime_ns', 'sha256'}}: a file that has the same
        size and time is not read again.

    Returns:
      ({'config': hash, 'files': {network: hash}}, {path: {'size', 'mtime_ns', 'sha256'}}).
    """
    files, seen = {}, {}
    for network in opened.networks:
        path = os.path.realpath(_file(opened, network))
        about = os.stat(path)
        stamp = {'size': about.st_size, 'mtime_ns': about.st_mtime_ns}
        remembered = (known or {}).get(path, {})
        same = remembered.get('sha256') and stamp.items() <= remembered.items()
        files[network] = remembered['sha256'] if same else _hashed(path, **stamp)
        seen[path] = stamp | {'sha256': files[network]}
    config = opened.config.to_dict()
    config.pop('refiner', None)  # no chunk depends on it
    return {'config': digest(config), 'files': files}, seen


def _file(opened, network):
    if isinstance(opened.stored, Folder):
        return opened.stored.path / f'{network}.safetensors'
    return opened.stored.files[network][0]


@functools.lru_cache(64)
def _hashed(path, size, mtime_ns):
    """The SHA-256 of a file; size and mtime_ns are there for the cache."""
    hashing = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(BLOCK):
            stopping.check()
            hashing.update(block)
    return hashing.hexdigest()


def of_programs(decode_frames: int) -> dict[str, Any]:
    """What programs are compiled from and for. Where all of it is the same, a chunk comes out bit for bit the same.

    On a GPU that needs the compiled programs as well, for which the compiler measures: see docs/sessions.md.
    """
    device = devices.current()
    return {
        'st2v_jax': __version__,
        'jax': jax.__version__,
        'jaxlib': jaxlib.__version__,
        'device': f'{device.device_kind} ({device.platform})',
        'driver': getattr(device.client, 'platform_version', '').split('\n')[0],
        'processor': _processor() if device.platform == 'cpu' else '',
        'flags': ' '.join(sorted(os.environ.get('XLA_FLAGS', '').split())),
        'optimised': not jax.config.values['jax_disable_most_optimizations'],
        'decode_frames': decode_frames,
    }


@functools.cache
def _processor():
    """The processor and how many of its cores this process uses, on which sums over threads depend."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    name = platform.processor() or platform.machine()
    about = Path('/proc/cpuinfo')
    if about.is_file():
        lines = about.read_text(errors='replace').splitlines()
        name = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), name)
    return f'{name}, {cores} cores'


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two `of_programs`, in words; '' if nothing does."""
    return ', '.join(f'{name} {then.get(name)} then, {now[name]} now' for name in now if then.get(name) != now[name])
