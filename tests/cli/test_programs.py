"""The cache of compiled programs: what is wrong with it is one line, and the run goes on."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from st2v_jax.cli import programs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def keep(monkeypatch, capsys):
    """keep(ST2V_CACHE=...) -> (the folder that jax will use or None, stderr); no other variable is set."""

    def keep(**environment):
        for name in ('ST2V_CACHE', 'JAX_COMPILATION_CACHE_DIR', 'XDG_CACHE_HOME', 'HOME'):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        with warnings.catch_warnings():
            programs.keep()
        return os.environ.get('JAX_COMPILATION_CACHE_DIR'), capsys.readouterr().err

    return keep


def test_a_folder_that_can_be_written_is_used_and_left_as_it_is(keep, tmp_path):
    folder = tmp_path / 'new' / 'cache'
    assert keep(ST2V_CACHE=folder) == (str(folder), '') and list(folder.iterdir()) == []
    assert keep(JAX_COMPILATION_CACHE_DIR=folder) == (str(folder), '')
    assert keep(HOME=tmp_path) == (f'{tmp_path}/.cache/st2v_jax', '')
    assert keep(JAX_COMPILATION_CACHE_DIR='gs://bucket/cache') == ('gs://bucket/cache', '')
    assert keep(ST2V_CACHE='') == (None, ''), 'no cache is asked for'


def read_only(*args, **kwargs):
    raise PermissionError(13, 'Permission denied')


class Full:
    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def write(self, data):
        raise OSError(28, 'No space left on device')


@pytest.mark.parametrize('by', ['ST2V_CACHE', 'JAX_COMPILATION_CACHE_DIR'])
@pytest.mark.parametrize('opened, why', [(read_only, 'Permission denied'), (Full, 'No space left on device')])
def test_a_folder_without_room_or_right_is_one_line(keep, by, opened, why, tmp_path, monkeypatch):
    monkeypatch.setattr(programs.tempfile, 'TemporaryFile', opened)
    folder, said = keep(**{by: tmp_path})
    assert folder is None, 'jax would warn of each program'
    assert said == (
        f'warning: compiled programs are not kept ({tmp_path}: {why}); $ST2V_CACHE can name another folder for them\n'
    )


def test_a_file_in_the_place_of_the_folder_and_a_missing_home_are_one_line(keep, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    for place in (tmp_path / 'file', tmp_path / 'file' / 'cache'):
        folder, said = keep(ST2V_CACHE=place)
        assert folder is None and said.startswith(f'warning: compiled programs are not kept ({place}: ')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)
    assert 'there is no home folder' in keep()[1] and not (tmp_path / '~').exists()


def warned(*messages):
    """What `keep` makes of warnings of jax."""
    with warnings.catch_warnings():
        programs.keep()
        for message in messages:
            warnings.warn(message, stacklevel=1)


READING = "Error reading persistent compilation cache entry for '{}': ZstdError: cut"


def test_of_a_damaged_program_only_its_own_file_goes(tmp_path, monkeypatch, capsys):
    from jax._src.compilation_cache import compress_executable

    monkeypatch.setenv('ST2V_CACHE', str(tmp_path))
    whole = compress_executable(b'program' * 100)
    files = {'jit_step-00-cache': whole, 'jit_step-11-cache': whole[:-5], 'jit_step_2-22-cache': b'', 'mine': b''}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    warned(READING.format('jit_step'), READING.format('jit_step'))
    assert {file.name for file in tmp_path.iterdir()} == {'jit_step_2-22-cache', 'mine'}, (
        'the second warning is about one that can be unpacked, so all of that name go'
    )
    assert capsys.readouterr().err == (
        f'warning: a compiled program in {tmp_path} is damaged; it is compiled again and replaced\n'
    )


def test_programs_that_cannot_be_written_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ST2V_CACHE', str(tmp_path))
    writing = (
        "Error writing persistent compilation cache entry for 'jit_{}': OSError: [Errno 28] No space left on device"
    )
    warned(*map(writing.format, 'abc'))
    assert capsys.readouterr().err == (
        f'warning: compiled programs cannot be kept in {tmp_path} (OSError: [Errno 28] No space left on device)\n'
    )


def test_other_warnings_are_shown_as_ever(tmp_path, monkeypatch):
    monkeypatch.setenv('ST2V_CACHE', str(tmp_path))
    with pytest.warns(UserWarning, match='something else'):
        warned('something else')


PROGRAM = """
from st2v_jax.cli import programs
programs.keep()
import jax
jax.jit(lambda x: x + 1)(1.0).block_until_ready()
step = jax.jit(lambda x: x * 2 + x)
step(jax.numpy.ones(3)), step(jax.numpy.ones(4))
"""


@pytest.mark.slow
def test_damaged_programs_are_compiled_again_and_replaced(tmp_path):
    def run():
        environment = os.environ | {'ST2V_CACHE': str(tmp_path), 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
        done = subprocess.run([sys.executable, '-c', PROGRAM], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr.splitlines()

    assert run() == []
    entries = sorted(tmp_path.glob('*-cache'))
    sizes = {entry.name: entry.stat().st_size for entry in entries}
    for entry, kept in zip(entries, (0, 1, 100, 500)):
        entry.write_bytes(entry.read_bytes()[:kept])
    (line,) = run()
    assert line == f'warning: a compiled program in {tmp_path} is damaged; it is compiled again and replaced'
    assert {entry.name: entry.stat().st_size for entry in tmp_path.glob('*-cache')} == sizes
    assert run() == [], 'the next run finds whole programs'
