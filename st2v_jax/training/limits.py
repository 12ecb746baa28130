"""When a run ends: after so many steps, after so much time, or at a signal."""

import math
import signal
import time

import jax


class Clock:
    """How far the run is, by steps and by time, whichever is further.

    The time limit counts from the start of the command, so that preparing and compiling are within it; the progress by
    time counts from the end of the first step, so that they do not use up the warm-up.
    """

    def __init__(self, config, progress: float, began: float):
        """progress: of the checkpoint that the run goes on from. began: the time.monotonic() of the command's start."""
        self._steps, self._first = config.steps, progress
        self._deadline = began + config.max_seconds if config.max_seconds else math.inf
        self._since = None

    def stepped(self, metrics) -> None:
        """A step has been taken that makes these metrics; the first one is waited for."""
        if self._since is None:
            jax.block_until_ready(metrics)
            self._since = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether there is no time left."""
        return time.monotonic() >= self._deadline

    def progress(self, number: int) -> float:
        """The fraction of the run that is done after `number` steps; above 1 where it took more time than it had."""
        by_time = self._first
        if self._since is not None and self._deadline < math.inf:
            share = (time.monotonic() - self._since) / max(self._deadline - self._since, 1e-9)
            by_time += (1 - self._first) * min(share, 1.0)
        return max(number / self._steps, by_time)


class Signals:
    """`stop` is true after SIGTERM or Ctrl-C; the step in hand is finished and saved. A second one kills as usual."""

    def __enter__(self):
        self.stop = False
        self._before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number, _):
        self.stop = True
        signal.signal(number, self._before[number])

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
