"""One run writes an output at a time; what killed runs leave stops nobody, and files of others stay."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from st2v_jax.errors import OutputError
from st2v_jax.storage import lock
from st2v_jax.storage.lock import Busy, locked

fcntl, resource = pytest.importorskip('fcntl'), pytest.importorskip('resource')


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def others():
    return sorted(str(file) for file in Path().rglob('*'))


def test_a_second_run_is_refused_until_the_first_ends():
    with locked('star.mp4'):
        with pytest.raises(Busy, match='^another run is writing star.mp4$'), locked('star.mp4'):
            pass
        with locked('moon.mp4'):
            pass
        assert others() == ['.star.mp4.st2v-lock'], 'neither the refused run nor the other one touched it'
    assert others() == []
    with locked('star.mp4'):
        pass


def test_it_is_let_go_after_an_error():
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), locked('star.mp4'):
            raise KeyboardInterrupt
    assert others() == []


@pytest.mark.parametrize('name', ['./star.mp4', 'folder/../star.mp4', 'link.mp4', 'twice.mp4', 'away/star.mp4', None])
def test_two_names_of_one_file_are_one_output(name):
    Path('folder').mkdir()
    Path('link.mp4').symlink_to('star.mp4')  # of a file that is not there yet
    Path('twice.mp4').symlink_to('link.mp4')
    Path('away').symlink_to('.')
    with locked('star.mp4'), pytest.raises(Busy), locked(name or Path('star.mp4').absolute()):
        pass


@pytest.mark.parametrize('name', ['frames/', 'frames', './frames/.', 'frames/../frames'])
def test_a_folder_is_an_output_too(name):
    with locked('frames/'):
        Path('frames').mkdir()
        with pytest.raises(Busy), locked(name):
            pass


@pytest.mark.parametrize('name', ['.', '..', '/'])
def test_folders_without_a_name_of_their_own_have_a_lock(name):
    assert lock.lock_file(name).name not in ('', '..st2v-lock')
    assert lock.lock_file('.') == lock.lock_file(Path().absolute())


def test_a_folder_in_one_that_is_read_only_is_locked_inside(monkeypatch):
    Path('frames').mkdir()
    inside = Path('frames').resolve() / '.st2v-lock'
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # root may write everywhere
    with locked('frames/'):
        assert inside.is_file()
        with pytest.raises(Busy), locked('frames'):
            pass
    assert others() == ['frames']


def test_a_killed_run_stops_nobody():
    code = (
        'import sys, time\nfrom st2v_jax.storage.lock import locked\n'
        'with locked("star.mp4"):\n    print("locked", flush=True)\n    sys.stdin.read()'
    )
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    with subprocess.Popen([sys.executable, '-c', code], **pipes) as process:
        assert process.stdout.readline() == 'locked\n'
        with pytest.raises(Busy), locked('star.mp4'):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert others() == ['.star.mp4.st2v-lock'], 'it could not clean up'
    with locked('star.mp4'):
        pass
    assert others() == []


def test_a_lock_that_was_removed_while_it_was_opened_is_not_one(monkeypatch):
    """The first run ends after the second one opened the file: what the second one then locks has no name."""
    first = locked('star.mp4')
    first.__enter__()
    flock, waiting = fcntl.flock, [first]

    def late(file, how):
        if waiting:
            waiting.pop().__exit__(None, None, None)
        flock(file, how)

    monkeypatch.setattr(fcntl, 'flock', late)
    with locked('star.mp4'):
        assert Path('.star.mp4.st2v-lock').exists()
        with pytest.raises(Busy), locked('star.mp4'):
            pass


@pytest.mark.parametrize('reason', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_it_goes_on_without(reason, monkeypatch):
    def flock(file, how):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, 'flock', flock)
    with locked('star.mp4'), locked('star.mp4'):
        assert others() == []
    monkeypatch.setattr(lock, 'fcntl', None)
    with locked('star.mp4'), locked('star.mp4'):
        assert others() == []


def test_a_file_of_the_user_with_the_name_of_a_lock_stays():
    mine = Path('.star.mp4.st2v-lock')
    mine.write_text('mine')
    with locked('star.mp4'):
        pass
    assert mine.read_text() == 'mine'
    mine.unlink()
    Path('precious').touch()
    mine.symlink_to('precious')
    with pytest.raises(OutputError, match='cannot write star.mp4: '), locked('star.mp4'):
        pass
    assert others() == ['.star.mp4.st2v-lock', 'precious']


@pytest.mark.parametrize('name', ['a' * 251 + '.mp4', '球' * 83 + '.mp4', 'é' * 125 + '.gif'], ids=lambda name: name[0])
def test_every_name_that_a_file_can_have_can_be_locked(name):
    Path(name).touch()
    with locked(name):
        with pytest.raises(Busy), locked(name):
            pass
        with locked(name[1:]):  # they differ at the beginning, and in hash
            pass
    assert others() == [name]


def test_a_run_may_have_more_outputs_than_files_that_may_be_open(request):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits))
    few = 20 + max(map(int, os.listdir('/proc/self/fd') if os.path.isdir('/proc/self/fd') else ['100']))
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
    with ExitStack() as stack:
        for number in range(5 * few):
            stack.enter_context(locked(f'{number}.mp4'))
        with ExitStack() as work:
            for _ in range(few):
                work.enter_context(open(os.devnull))
    assert others() == []


def test_folders_above_are_made_and_go_if_they_are_empty():
    with locked('runs/cam/weights'):
        assert Path('runs/cam').is_dir()
    assert others() == []
    with locked('runs/cam/weights'):
        Path('runs/mine').touch()
    assert others() == ['runs', 'runs/mine']


@pytest.mark.parametrize(
    'output, reason',
    [
        ('file/star.mp4', 'Not a directory'),
        ('a/' * 2100 + 'star.mp4', 'File name too long'),
        ('loop/a', 'symbolic links'),
    ],
    ids=['file', 'long', 'loop'],
)
def test_what_cannot_be_locked_is_one_line(output, reason):
    Path('file').touch()
    Path('loop').symlink_to('loop')
    with pytest.raises(OutputError, match=f'^cannot write {output}: .*{reason}.*$'), locked(output):
        pass
    assert others() == ['file', 'loop']
