"""Signals: none is lost, none arrives in the middle of something, and what is ignored stays ignored."""

import gc
import signal
import subprocess
import sys
import threading

import pytest

from st2v_jax import stopping

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize('sent', CODES)
def test_a_signal_is_noticed_at_the_next_look(sent):
    with stopping.listening():
        stopping.check()
        signal.raise_signal(sent)
        assert stopping.told(), 'the signal itself interrupts nothing'
        with pytest.raises(stopping.Stopped) as stopped:
            stopping.check()
    assert stopped.value.code == CODES[sent] and not isinstance(stopped.value, Exception)


def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost():
    def during_collection(phase, info):
        if phase == 'start' and not stopping.told():
            signal.raise_signal(signal.SIGINT)

    with stopping.listening():
        gc.callbacks.append(during_collection)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(during_collection)
        with pytest.raises(stopping.Stopped):
            stopping.check()


def test_a_second_signal_does_not_wait():
    with stopping.listening():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(stopping.Stopped) as stopped:
            signal.raise_signal(signal.SIGINT)
    assert stopped.value.code == 130


def test_afterwards_signals_do_what_they_did_before():
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.listening():
        with stopping.listening():
            signal.raise_signal(signal.SIGTERM)
        assert stopping.told(), 'the end of an inner block forgets nothing'
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
    stopping.check()


@pytest.mark.parametrize('ignored', CODES)
def test_what_is_ignored_stays_ignored(ignored):
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with stopping.listening():
            signal.raise_signal(ignored)
            stopping.check()
            assert signal.getsignal(ignored) is signal.SIG_IGN
    finally:
        signal.signal(ignored, before)


def test_a_thread_listens_to_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with stopping.listening():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize('sent', CODES)
def test_a_signal_after_the_work_shows_no_traceback(sent):
    program = (
        f'import signal, time\nfrom st2v_jax import stopping\nstopping.leave()\nsignal.raise_signal({int(sent)})\n'
    )
    done = subprocess.run([sys.executable, '-c', f'{program}time.sleep(60)'], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (CODES[sent], '')
