"""Measures one video with several instruments, in one pass and in memory that does not grow with frames."""

import math
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax import __version__
from st2v_jax.errors import InputError
from st2v_jax.evaluation.instruments import Instrument, View, resized
from st2v_jax.video_io import VideoReader

# Packages whose version may show in the numbers, by the module that imports them
PACKAGES = {'cv2': 'opencv-python-headless', 'scenedetect': 'scenedetect-headless'}
DIGITS = 6  # of a stored value of a curve


def measure(
    path: str | Path,
    instruments: Sequence[Instrument],
    prompt: str | None,
    *,
    begin: Callable[[int], None] = lambda frames: None,
    on_frames: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Measures a video.

    Args:
      path: whatever VideoReader reads.
      instruments: at least one.
      prompt: for those that need it.
      begin: called with the number of frames, once it is known.
      on_frames: called with how many are done.

    Returns:
      A JSON dict: 'frames', 'fps', 'size' ([height, width]), and 'measured', {instrument: {'settings', 'versions',
      'numbers', 'curves'}}. What is not finite is None, as the MAWE of a video that stands still.

    Raises:
      InputError: for a video that cannot be read, or is too short or too small for an instrument.
    """
    reader = VideoReader(path)
    if reader.frames < 2:
        raise InputError(f'cannot measure {path}: it has one frame, and a video has at least two')
    for instrument in instruments:
        if reader.frames < instrument.fewest:
            raise InputError(
                f'cannot measure {path}: {instrument.name} needs {instrument.fewest} frames, not {reader.frames}'
            )
        shorter = min(instrument.size or reader.size)
        if shorter < instrument.smallest:
            raise InputError(
                f'cannot measure {path}: {instrument.name} needs {instrument.smallest} pixels a side, not {shorter}'
            )
    begin(reader.frames)
    looks = {instrument.name: instrument.begin(prompt) for instrument in instruments}
    parts, before, done = {name: {} for name in looks}, {}, 0
    for frames in reader:
        views = {}
        for instrument in instruments:
            size = instrument.size
            if size not in views:
                views[size] = View(resized(frames, size), before.get(size))
                before[size] = views[size].frames[-1].copy()
            for curve, values in looks[instrument.name](views[size]).items():
                parts[instrument.name].setdefault(curve, []).append(values)
        done += len(frames)
        on_frames(done)
    measured = {}
    for instrument in instruments:
        curves = {name: np.concatenate(values) for name, values in parts[instrument.name].items()}
        measured[instrument.name] = {
            'settings': instrument.settings(prompt),
            'versions': versions(instrument.modules),
            'numbers': {name: finite(value) for name, value in instrument.numbers(curves).items()},
            'curves': {name: [finite(value, DIGITS) for value in curve.tolist()] for name, curve in curves.items()},
        }
    return {'frames': done, 'fps': reader.fps, 'size': list(reader.size), 'measured': measured}


def finite(value: float, digits: int | None = None) -> float | None:
    """A number as JSON has it: None if it is not finite; rounded to so many digits that count."""
    if not math.isfinite(value):
        return None
    return value if digits is None or isinstance(value, int) else float(f'{value:.{digits}g}')


def versions(modules: Iterable[str]) -> dict[str, str]:
    """The versions of this package and of what an instrument imports."""
    found = {'st2v_jax': __version__}
    for module in modules:
        found[module] = metadata.version(PACKAGES[module])
    return found
