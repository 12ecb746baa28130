"""Jobs take turns on one thread, for there is one device."""

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from st2v_jax import stopping
from st2v_jax.errors import BadInput, Failed

Key = tuple[str, str]  # the names of a session and of its branch
EXPECTED = (BadInput, Failed, OSError, ValueError)  # errors whose message is for a user


class Progress(NamedTuple):
    """How far a job is: `step` of `steps` in a chunk, or of an enhancement, whose chunk is None."""

    chunk: int | None
    step: int
    steps: int


@dataclass(eq=False)
class Job:
    """Work on a branch.

    Attributes:
      key: what it works on; there is one job for a branch at a time.
      steps: does the work; yields whether another job may take its turn now.
      progress: None until the first step is done.
      preview: (a number that grows, a PNG file) of the chunk in work; None without one.
      notes: lines for the user.
      stopped: whether it is to end at its next step.
    """

    key: Key
    steps: Iterator[bool] | None = None
    progress: Progress | None = None
    preview: tuple[int, bytes] | None = None
    notes: list[str] = field(default_factory=list)
    stopped: bool = False


class Turns:
    """The queue: each job in turn makes a chunk, so that a long video does not keep others waiting until its end.

    told: the message of an error for the user, see `words`.
    """

    def __init__(self, told: Callable[[Exception], str]):
        self._told = told
        self._waiting, self._running, self._failed, self._closed = deque(), None, {}, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name='turns', daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Adds a job at the end, unless there is one for its branch, which then goes on."""
        with self._changed:
            there = self._find(job.key)
            if there is not None and not there.stopped:
                return
            self._failed.pop(job.key, None)
            self._waiting.append(job)
            self._changed.notify_all()

    def find(self, key: Key) -> tuple[Job, int] | None:
        """The job of a branch, and how many come before it; None without one."""
        with self._changed:
            job = self._find(key)
            return None if job is None else (job, 0 if job is self._running else self._place(job))

    def failure(self, key: Key) -> str | None:
        """Why the last job of a branch failed, in one line."""
        with self._changed:
            return self._failed.get(key)

    def stop(self, key: Key, *, wait: bool = False) -> None:
        """Ends the job of a branch at its next step; wait: until it has ended."""
        with self._changed:
            job = self._find(key)
            if job is None:
                return
            job.stopped = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.steps.close()
            while wait and job is self._running:
                self._changed.wait()

    def close(self) -> None:
        """Ends all jobs, the one in work at its next step."""
        with self._changed:
            self._closed = True
            for job in (self._running, *self._waiting):
                if job is not None:
                    job.stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _find(self, key):
        return next((job for job in (self._running, *self._waiting) if job is not None and job.key == key), None)

    def _place(self, job):
        return self._waiting.index(job) + (self._running is not None)

    def _run(self):
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    for job in self._waiting:
                        job.steps.close()
                    return
                self._running = self._waiting.popleft()
            try:
                goes_on, failure = self._turn(self._running), None
            except stopping.Stopped:
                goes_on, failure, self._closed = False, None, True
            except Exception as error:
                goes_on, failure = False, self._told(error)
            with self._changed:
                if failure is not None:
                    self._failed[self._running.key] = failure
                if goes_on and not self._running.stopped:
                    self._waiting.append(self._running)
                elif goes_on:
                    self._running.steps.close()
                self._running = None
                self._changed.notify_all()

    def _turn(self, job):
        """Works until the job is stopped or another one may take its turn; returns whether there is more to do."""
        return any(job.stopped or (others_may and self._waiting) for others_may in job.steps)


def words(error: Any) -> str:
    """The message of an error, in one line; what is a bug is printed with its traceback too."""
    if isinstance(error, OSError) and error.strerror:
        return ': '.join(str(part) for part in (error.filename, error.strerror) if part)
    if isinstance(error, EXPECTED):
        return str(error).partition('\n')[0]
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        return 'out of device memory'
    traceback.print_exception(error, file=sys.stderr)
    return f'this is a bug of st2v_jax, see the terminal: {error!r}'.partition('\n')[0]
