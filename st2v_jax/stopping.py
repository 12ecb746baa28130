"""How a run is told to stop: a signal sets a flag, and every step and every piece of work looks at it.

An exception that a signal handler raises can be lost, as Python drops those that arrive in a destructor or in a
callback of the garbage collector. It can also arrive while a file is being closed. A flag does neither: what is
complete is written properly, and the run ends within one step or one compilation.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# Ctrl-C; what schedulers and `kill` send; the terminal or the connection is gone, which Windows does not have
SIGNALS = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name))

_received: signal.Signals | None = None


class Stopped(BaseException):
    """The run was told to stop. Not an Exception, so that nothing takes it for a failure that it can go on after.

    Attributes:
      code: the exit code of a program that ends for this reason, 128 and the number of the signal.
    """

    def __init__(self, received: signal.Signals):
        super().__init__(received.name)
        self.code = 128 + received


def told() -> bool:
    """Whether a signal has come since `listening` began."""
    return _received is not None


def check() -> None:
    """Raises Stopped if a signal has come. Called between two steps, where everything can be left as it is."""
    if _received is not None:
        raise Stopped(_received)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Within this block signals set the flag; a second signal raises Stopped wherever it arrives.

    A signal that is ignored stays ignored, as SIGHUP under nohup. Inside another such block, and in a thread, which
    cannot handle signals, nothing changes.
    """
    global _received
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS if ours}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, _receive, None)}
    if not before:
        yield
        return
    _received = None
    for number in before:
        signal.signal(number, _receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received = None


def leave() -> None:
    """From now on a signal ends the process at once: for when its work is done and Python takes itself apart."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(128 + number))


def _receive(number: int, frame: FrameType | None) -> None:
    global _received
    again, _received = told(), signal.Signals(number)
    if again:
        raise Stopped(_received)
