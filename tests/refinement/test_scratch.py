"""Temporary files have their space before they are used, say when there is none, and go in every case."""

import errno
import os
import resource
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from st2v_jax.refinement import scratch


@pytest.fixture
def small_files():
    """No file may grow over 64 KB, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(params=['reserved', 'written', 'without the function'])
def way(request, monkeypatch):
    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, 'Operation not supported')

    if request.param == 'written':
        monkeypatch.setattr(os, 'posix_fallocate', refused)
    if request.param == 'without the function':
        monkeypatch.delattr(os, 'posix_fallocate')
    monkeypatch.setattr(scratch, 'BLOCK', 1000)


def test_an_array_has_its_space_from_the_beginning(way, tmp_path):
    array = scratch.allocate(tmp_path / 'x', (3, 5, 70))
    file = os.stat(tmp_path / 'x')
    assert array.shape == (3, 5, 70) and array.dtype == np.float32 and not array.any()
    assert file.st_size == 4 * 3 * 5 * 70 and 512 * file.st_blocks >= file.st_size, 'it has no holes'
    array[1] = 2
    assert np.fromfile(tmp_path / 'x', np.float32).sum() == 2 * 5 * 70


def test_a_full_disk_is_an_error_that_names_the_file(way, small_files, tmp_path):
    with pytest.raises(OSError, match='File too large') as full:
        scratch.allocate(tmp_path / 'x', (2**16,))
    assert full.value.filename == str(tmp_path / 'x') and full.value.errno == errno.EFBIG
    told = r'File too large; \$TMPDIR chooses the folder for temporary files'
    with pytest.raises(OSError, match=told) as full, scratch.scratch(tmp_path) as folder:
        scratch.allocate(folder / 'x', (2**16,))
    assert full.value.filename == str(folder / 'x') and full.value.errno == errno.EFBIG


def test_what_is_appended_is_whole_or_an_error_that_names_the_file(small_files, tmp_path):
    scratch.append(tmp_path / 'latents', np.arange(3, dtype=np.float32))
    scratch.append(tmp_path / 'latents', np.arange(2**13, dtype=np.float32))
    assert np.fromfile(tmp_path / 'latents', np.float32)[:4].tolist() == [0, 1, 2, 0]
    with pytest.raises(OSError, match='File too large') as full:
        scratch.append(tmp_path / 'latents', np.zeros(2**14, np.float32))
    assert full.value.filename == str(tmp_path / 'latents')


@pytest.mark.parametrize('size, whole', [(0, 0), (99, 0), (100, 1), (101, 1), (399, 3)])
def test_a_file_is_cut_after_its_last_whole_piece(size, whole, tmp_path):
    assert scratch.cut(tmp_path / 'latents', 100) == 0 and not (tmp_path / 'latents').exists()
    (tmp_path / 'latents').write_bytes(bytes(range(200))[: size // 2] * 2 + bytes(size % 2))
    before = (tmp_path / 'latents').read_bytes()
    assert scratch.cut(tmp_path / 'latents', 100) == whole
    assert (tmp_path / 'latents').read_bytes() == before[: 100 * whole]


@pytest.mark.parametrize('error', [None, KeyboardInterrupt, OSError])
def test_the_folder_goes_in_every_case(error, tmp_path):
    try:
        with scratch.scratch(tmp_path) as folder:
            scratch.allocate(folder / 'x', (10,))
            assert folder.parent == tmp_path
            if error:
                raise error
    except BaseException as raised:
        assert type(raised) is error
    assert not list(tmp_path.iterdir())


def test_what_is_needed_is_compared_with_what_is_free(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=2_500_000))
    scratch.check_room(2_500_000)
    with pytest.raises(OSError, match=r'the enhancement needs 2\.6 MB in \$TMPDIR, 2\.5 MB are free') as full:
        scratch.check_room(2_600_000)
    assert (full.value.filename, full.value.errno) == (str(tmp_path), errno.ENOSPC)


@pytest.mark.parametrize('value', ['missing', 'file', 'read-only'])
def test_a_folder_that_cannot_be_used_is_named(value, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    if value == 'read-only':
        denied = PermissionError(13, 'Permission denied', str(tmp_path / value))
        monkeypatch.setattr(tempfile._os, 'mkdir', lambda *_: (_ for _ in ()).throw(denied))
    with pytest.raises(OSError) as error, scratch.scratch(tmp_path / value):
        pass
    assert str(tmp_path / value) in str(error.value.filename)
    assert [file.name for file in Path(tmp_path).iterdir()] == ['file']
