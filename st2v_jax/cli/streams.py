"""Talking may fail, work may not: stdout and stderr that never end a run.

A pipe is closed (`... | head -1`), the disk behind a log is full, the terminal is gone, or its encoding lacks a letter.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Lenient:
    """A text stream without errors: letters that it lacks are written as \\u..., and after a failure all is dropped."""

    def __init__(self, stream: TextIO | None):
        """stream: None, as Python has it for a descriptor that is closed, drops everything."""
        self._stream, self._lost = stream or io.StringIO(), stream is None
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, or drops it."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or drops it."""
        self._try(self._stream.flush)

    def close(self) -> None:
        """Flushes: the stream belongs to the process, and is there for what others have to say at its end."""
        self.flush()

    def _try(self, act, *text):
        if self._lost:
            return
        try:
            act(*text)
        except (OSError, ValueError):  # ValueError: somebody has closed the stream
            with contextlib.suppress(OSError, ValueError):
                # Python flushes the stream again at its end: that must not fail either.
                with open(os.devnull, 'w') as nowhere:
                    os.dup2(nowhere.fileno(), self._stream.fileno())
                self._stream.flush()
            self._lost = True


@contextlib.contextmanager
def lenient_streams() -> Iterator[None]:
    """Within this block sys.stdout and sys.stderr are Lenient, and at its end they are flushed."""
    out, err = Lenient(sys.stdout), Lenient(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
