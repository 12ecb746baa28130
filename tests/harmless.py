"""Watches how a hostile file is read: what Python audits, time and memory."""

import encodings.cp437  # noqa: F401 (zipfile would load it with the first name that it reads)
import sys
import time
import tracemalloc
from contextlib import contextmanager

from st2v_jax.storage.pickle_reader import PickledTensors
from st2v_jax.storage.untrusted import UnsafeCheckpointError

EVENTS = None


def _note(event, args):
    if EVENTS is not None:
        EVENTS.append((event, args))


sys.addaudithook(_note)  # Python reports every import, compilation, call of pickle, process and file opened


@contextmanager
def harmless(path):
    """Checks that the block opens only `path`, does nothing else that Python audits, and is quick and small."""
    global EVENTS
    tracemalloc.start()
    start, EVENTS = time.perf_counter(), []
    try:
        yield
    finally:
        events, EVENTS = EVENTS, None
        seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    odd = [(event, str(args)[:200]) for event, args in events if event not in ('open', 'mmap.__new__')]
    assert not odd, odd
    assert {str(args[0]) for event, args in events if event == 'open'} <= {str(path)}
    assert seconds < 5 and peak < 2**25, (seconds, peak)


def refused(path, match=None):
    with harmless(path):
        try:
            tensors = PickledTensors(path)
            message = f'read {[tensors[name].shape for name in tensors]}'
        except UnsafeCheckpointError as error:
            message = str(error)
            assert len(message) < 2000
        else:
            message = f'no error: {message}'
    assert message.startswith(f'{path}: ') and (match is None or match in message), message
