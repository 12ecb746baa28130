"""When frames are shown: the steady rate in their times, and which frame is nearest to a time."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

LONGEST = 3600.0  # seconds between two frames; more is a damaged time, and would repeat a frame without end


class Shot(NamedTuple):
    """A frame with its time.

    Attributes:
      time: seconds after the first frame; never less than that of the frame before.
      lasts: seconds that it is shown, as far as the file says so; matters for the last frame.
      frame: the frame.
    """

    time: float
    lasts: float
    frame: Any


def off(times: np.ndarray, fps: float) -> float:
    """How far, in frames, a frame is off its place at a constant rate; below half a frame the rate fits."""
    return float(np.abs(times * float(fps) - np.arange(len(times))).max())


def steady_rate(times: np.ndarray, stated: Iterable[float]) -> float | None:
    """The constant rate of a video: a stated one if it fits about as well as the mean one; None if none fits."""
    if not times[-1]:
        return None
    rates = [float(rate) for rate in stated] + [(len(times) - 1) / times[-1]]
    best = min(off(times, rate) for rate in rates)
    return next(rate for rate in rates if off(times, rate) <= best + 0.05) if best < 0.5 else None


def end_of(times: np.ndarray, lasts: np.ndarray) -> float:
    """When the last frame ends: after what the file says, if that is true of the other frames, else after the mean."""
    gaps = np.diff(times)
    believed = np.abs(gaps - lasts[:-1]).sum() <= 0.1 * times[-1] and lasts[-1] <= LONGEST
    return float(times[-1] + (lasts[-1] if believed or not len(gaps) else gaps.mean()))


def count_at(times: np.ndarray, end: float, fps: float) -> int:
    """How many frames at a constant rate last from 0 to `end`: those of a steady video, otherwise as many as fit."""
    if off(times, fps) < 0.5 and abs(end * float(fps) - len(times)) <= 1:
        return len(times)
    return max(1, round(end * float(fps)))


def nearest(shots: Iterable[Shot], fps: float, count: int | None = None) -> Iterator[tuple[Shot, int]]:
    """Yields each shot with a number: for how many of the times 0, 1/fps, 2/fps, ... it is the nearest one.

    count: how many times there are; None for all until the end of the last shot. The numbers add up to it.
    """
    fps, done, before = float(fps), 0, None
    for shot in shots:
        if before is not None:
            # a millionth of a frame settles ties in favour of the earlier shot
            until = int((before.time + shot.time) / 2 * fps + 1e-6) + 1
            until = max(done, until if count is None else min(until, count))
            yield before, until - done
            done = until
        before = shot
    if before is not None:
        until = max(1, round((before.time + before.lasts) * fps)) if count is None else count
        yield before, max(0, until - done)
