"""Where nothing can be written is found out before the work, in one line, and nothing is touched for it."""

import os
import socket
from pathlib import Path

import pytest

from st2v_jax.errors import OutputError
from st2v_jax.storage.places import check_file, check_folder


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with one of everything that a path can lead to."""
    monkeypatch.chdir(tmp_path)
    Path('mine.mp4').write_text('precious')
    Path('folder').mkdir()
    os.mkfifo('pipe')
    with socket.socket(socket.AF_UNIX) as made:
        made.bind('socket')
    links = {
        'link.mp4': 'mine.mp4',
        'twice.mp4': 'link.mp4',
        'new.mp4': 'folder/new.mp4',
        'gone.mp4': 'gone/a.mp4',
        'through.mp4': 'mine.mp4/a.mp4',
        'loop.mp4': 'loop.mp4',
        'null.mp4': os.devnull,
        'to-folder': 'folder',
        'gone': 'nowhere',
    }
    for name, target in links.items():
        os.symlink(target, name)
    before = sorted(Path().rglob('*'))
    yield
    assert sorted(Path().rglob('*')) == before and Path('mine.mp4').read_text() == 'precious'


@pytest.mark.parametrize(
    'path, leads_to',
    [
        ('mine.mp4', 'mine.mp4'),
        ('a.mp4', 'a.mp4'),
        ('folder/a.mp4', 'folder/a.mp4'),
        ('a' * 251 + '.mp4', 'a' * 251 + '.mp4'),
        ('link.mp4', 'mine.mp4'),
        ('twice.mp4', 'mine.mp4'),
        ('new.mp4', 'folder/new.mp4'),
    ],
)
def test_a_file_is_where_its_links_lead(path, leads_to):
    assert check_file(path).absolute() == Path(leads_to).absolute()


NO_FILE = {
    'folder': 'it is a folder',
    'to-folder': 'it is a folder',
    'pipe': 'it is not a file but a device, a pipe or a socket',
    'socket': 'it is not a file but a device, a pipe or a socket',
    'null.mp4': 'it is not a file but a device, a pipe or a socket',
    'none/a.mp4': 'none: No such file or directory',
    'mine.mp4/a.mp4': 'Not a directory',
    'gone.mp4': 'it is a link to .*nowhere/a.mp4: No such file or directory',
    'through.mp4': 'Not a directory',
    'loop.mp4': 'Too many levels of symbolic links',
    'a' * 252 + '.mp4': 'File name too long',
    '球' * 84 + '.mp4': 'File name too long',
    'folder/' * 600 + 'a.mp4': 'File name too long',
    'a\0.mp4': '.*null.*',
}


@pytest.mark.parametrize('path', NO_FILE, ids=lambda path: ascii(path[:20]))
def test_a_path_that_no_file_can_have_is_one_line(path):
    with pytest.raises(OutputError, match=rf'^cannot write {path}: {NO_FILE[path]}$'):
        check_file(path)


NO_FOLDER = {
    'mine.mp4': 'it is a file, not a folder',
    'mine.mp4/': 'Not a directory',
    'pipe': 'it is a file, not a folder',
    'none/new/': 'none: No such file or directory',
    'gone/': 'it is a link to .*nowhere, which is not there',
    'loop.mp4/': 'Too many levels of symbolic links',
    'a' * 256 + '/': 'File name too long',
}


@pytest.mark.parametrize('path', NO_FOLDER, ids=lambda path: path[:20])
def test_a_path_that_no_folder_can_have_is_one_line(path):
    with pytest.raises(OutputError, match=rf'^cannot write {path}: {NO_FOLDER[path]}$'):
        check_folder(path)


@pytest.mark.parametrize('path', ['folder', 'folder/', 'new/', 'folder/new', 'to-folder/', '.', '..', 'folder/..'])
def test_a_folder_may_be_new_or_there(path):
    check_folder(path)


def test_what_may_not_be_written_is_one_line(monkeypatch):
    def denied(path, *rest, **named):
        raise PermissionError(13, 'Permission denied', path)

    with monkeypatch.context() as patch:  # root, as which tests may run, may write to all
        patch.setattr(os, 'access', lambda path, mode: False)
        with pytest.raises(OutputError, match='^cannot write link.mp4: no permission$'):
            check_file('link.mp4')
    monkeypatch.setattr('builtins.open', denied)
    for check, path in ((check_file, 'folder/a.mp4'), (check_folder, 'folder/'), (check_folder, 'folder/new/')):
        with pytest.raises(OutputError, match=f'^cannot write {path}: folder: Permission denied$'):
            check(path)
