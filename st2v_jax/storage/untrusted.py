"""Files that may be hostile: the error that refuses them, and safe ways to show and read what they hold."""

import json
from typing import Any

from st2v_jax.storage.first_bytes import placeholder

CUT = 'it is cut short, as when a download ends early: fetch or convert it again'


class UnsafeCheckpointError(ValueError):
    """A checkpoint that holds anything but tensors in the layout of its format; nothing of it has been run."""


def show(value: Any) -> str:
    """A value of a file in a few words; printing a hostile value may take forever."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:80] + '...')
    if type(value) in (int, bool, float, type(None)):
        return repr(value)
    return f'{type(value).__name__}' + (f' of {len(value)}' if isinstance(value, tuple | list | dict) else '')


def read_json(text: bytes) -> dict[str, Any]:
    """A JSON object in which no key comes twice. Raises UnsafeCheckpointError for anything else."""

    def once(pairs):
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError('a key comes twice')
        return dict(pairs)

    if what := placeholder(text):
        raise UnsafeCheckpointError(what)
    try:
        value = json.loads(text.decode('utf-8-sig'), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        line = f'line {error.lineno}, ' if error.lineno > 1 else ''
        raise UnsafeCheckpointError(f'not a JSON object: {error.msg}, {line}column {error.colno}') from None
    except (ValueError, RecursionError) as error:
        raise UnsafeCheckpointError(f'not a JSON object: {error}') from None
    if not isinstance(value, dict):
        raise UnsafeCheckpointError(f'a JSON object is expected, got {show(value)}')
    return value
