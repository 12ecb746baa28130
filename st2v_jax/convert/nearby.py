"""What may have been meant by a path in which there is no model: the folder above or below, a run or a download."""

import contextlib
from pathlib import Path

from st2v_jax.errors import WeightsError
from st2v_jax.storage.buckets import is_address
from st2v_jax.weights.folder import held, is_ours

UNFINISHED = ('.part', '.partial', '.incomplete', '.crdownload', '.download', '.aria2', '.tmp')  # of downloads


def hint(source: str | Path) -> str:
    """': ' and what helps, for a file or folder in which no model was found; '' where nothing is known that does."""
    if is_address(source):
        return ''
    path = Path(source)
    if path.is_dir() and _is_model(path):
        return ': it is a folder that st2v_jax wrote, not a published one'
    above = [path.parent, path.parent / 'weights']
    below = [*path.glob('*/'), *path.glob('*/*/')] if path.is_dir() else []
    models = [place for place in dict.fromkeys([*below, *above]) if _is_model(place)]
    if len(models) == 1:
        return f': the model is {models[0]}'
    if path.is_dir():
        if not models and (path / 'checkpoints').is_dir():
            return ': it is a training run that has not written its weights yet'
        halves = sorted(file.name for file in path.iterdir() if file.suffix in UNFINISHED)
        if halves:
            return f': {halves[0]} is a download that has not finished'
    return ''


def _is_model(folder):
    """Whether this is a whole model: a folder of ours, or one of diffusers."""
    if (folder / 'model_index.json').is_file():
        return True
    with contextlib.suppress(WeightsError):
        return is_ours(folder) and bool(held(folder))
    return False
