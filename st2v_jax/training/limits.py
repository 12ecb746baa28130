"""When a run ends: after a number of steps or after a time."""

import math
import time
from typing import Any

import jax
from ml_collections import ConfigDict


class Clock:
    """The progress of the run, by steps or by time, whichever is further.

    The time limit counts from the start of the command and so includes preparing and compiling. The progress by time
    counts from the end of the first step, so that preparing and compiling do not shorten the warm-up.
    """

    def __init__(self, config: ConfigDict, progress: float, began: float):
        """progress: of the checkpoint that is resumed. began: time.monotonic() at the start of the command."""
        self._steps, self._first = config.steps, progress
        self._deadline = began + config.max_seconds if config.max_seconds else math.inf
        self._since = None

    def stepped(self, metrics: Any) -> None:
        """Must be called after each step with its metrics; waits for the first step."""
        if self._since is None:
            jax.block_until_ready(metrics)
            self._since = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the time limit is reached."""
        return time.monotonic() >= self._deadline

    def progress(self, number: int) -> float:
        """The fraction of the run that is done after `number` steps; above 1 if the time limit was exceeded."""
        by_time = self._first
        if self._since is not None and self._deadline < math.inf:
            share = (time.monotonic() - self._since) / max(self._deadline - self._since, 1e-9)
            by_time += (1 - self._first) * min(share, 1.0)
        return max(number / self._steps, by_time)
