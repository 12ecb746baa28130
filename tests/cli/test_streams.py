"""Talking may fail, work may not."""

import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest

from st2v_jax.cli import run, streams

ROOT = Path(__file__).parents[2]
HELP = (sys.executable, '-m', 'st2v_jax', '--help')


@pytest.mark.parametrize('encoding', ['ascii', 'cp1252', 'latin-1', 'koi8-r'])
def test_letters_that_a_stream_lacks_are_spelt_out(encoding):
    raw = io.BytesIO()
    stream = streams.Lenient(io.TextIOWrapper(raw, encoding=encoding))
    stream.write('saved 球.mp4 and caf\udce9')
    stream.flush()
    assert raw.getvalue().decode(encoding) == 'saved \\u7403.mp4 and caf\\udce9'


class Broken(io.StringIO):
    """A stream that takes the first line only."""

    def __init__(self, error):
        super().__init__()
        self.error, self.tries = error, 0

    def write(self, text):
        self.tries += 1
        if self.tries > 1:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    'error',
    [BrokenPipeError(), OSError(errno.ENOSPC, 'full'), OSError(errno.EIO, 'no terminal'), ValueError('closed file')],
)
def test_after_a_failure_the_rest_is_dropped(error):
    broken = Broken(error)
    stream = streams.Lenient(broken)
    for line in ('one', 'two', 'three'):
        assert stream.write(line) == len(line)
    stream.flush()
    assert (broken.getvalue(), broken.tries) == ('one', 2)


@pytest.mark.parametrize('name', ['stdout', 'stderr'])
def test_a_run_ends_well_when_nobody_listens(name, monkeypatch, capsys):
    def work(arguments, run):
        print('saved')
        print('warning', file=sys.stderr)
        sys.stderr.isatty()

    monkeypatch.setattr('st2v_jax.cli.convert.work', work)
    for stream in (None, Broken(BrokenPipeError())):
        monkeypatch.setattr(sys, name, stream)
        assert run.main(['convert', '--from', 'a', '--to', 'b']) == 0


@pytest.mark.parametrize(
    'redirected', ['| head -1', '>&-', '2>&- >&-', '> /dev/full', '2> /dev/full > /dev/full', '| true']
)
def test_the_exit_code_is_that_of_the_work(redirected):
    command = f'set -o pipefail; "$@" {redirected}'
    done = subprocess.run(['bash', '-c', command, 'bash', *HELP], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')
