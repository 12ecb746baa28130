"""The settings of a video, stored in its file as JSON."""

import json
from pathlib import Path
from typing import Any

from st2v_jax.errors import InputError


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata that a VideoWriter stored in an mp4, gif or png; {} in a file of somebody else.

    Raises InputError if the file cannot be opened.
    """
    return read_settings(path) or {}


def read_settings(path: str | Path) -> dict[str, Any] | None:
    """What `read_metadata` returns, but None if no VideoWriter wrote the file."""
    read = _of_picture if Path(path).suffix.lower() in ('.gif', '.png') else _of_video
    try:
        comment = read(path)
    except Exception as error:  # the libraries raise errors of many kinds for damaged files
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise InputError(f'cannot read {path}: {reason}') from error
    try:
        settings = json.loads(comment)
    except (TypeError, ValueError, RecursionError):  # there is no comment, or it is none of ours
        return None
    return settings if isinstance(settings, dict) else None


def _of_picture(path):
    from PIL import Image

    with Image.open(path) as file:
        return file.info.get('comment')


def _of_video(path):
    import av

    with av.open(f'file:{path}', metadata_errors='replace') as file:
        return file.metadata.get('comment')
