"""The progress bar says how far it is, however narrow the terminal."""

import contextlib
import os
import sys

import pytest

from st2v_jax.cli.progress import Progress

pty, termios = pytest.importorskip('pty'), pytest.importorskip('termios')


@pytest.mark.parametrize('columns', [20, 40, 80])
@pytest.mark.parametrize('total, said', [(48, '100%'), (None, '48 frames')])
def test_how_far_it_is_fits_any_terminal(columns, total, said, monkeypatch):
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (25, columns))
    with open(end, 'w') as stream, open(terminal, 'rb', buffering=0) as shown:
        monkeypatch.setattr(sys, 'stderr', stream)
        with Progress('a red ball bounces over a meadow', quiet=False) as progress:
            progress.stage('chunk 12/30 step 20/20', total)
            progress.to(48)
        stream.close()
        written = b''
        with contextlib.suppress(OSError):  # a terminal hands over what was written piece by piece, then ends in EIO
            while piece := os.read(shown.fileno(), 10_000):
                written += piece
    last = written.decode().strip().split('\r')[-1]
    assert last.startswith(said) and len(last) <= columns
