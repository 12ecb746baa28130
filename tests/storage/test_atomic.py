"""A file appears whole or not at all, and leaves nothing beside it."""

import os
import stat

import pytest

from st2v_jax.storage import atomic
from st2v_jax.storage.names import fit


def test_the_old_file_is_read_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / 'config.json'
    atomic.write_bytes(path, b'old')
    with atomic.replacing(path) as file:
        file.write(b'n')
        file.flush()
        assert path.read_bytes() == b'old'
        file.write(b'ew')
    assert path.read_bytes() == b'new' and [*tmp_path.iterdir()] == [path]


def test_an_error_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / 'config.json'
    for existing in ([], [path]):
        with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as file:
            file.write(b'half')
            raise KeyboardInterrupt
        assert [*tmp_path.iterdir()] == existing
        atomic.write_bytes(path, b'old')
    assert path.read_bytes() == b'old'


def test_two_that_write_the_same_file_do_not_meet(tmp_path):
    path = tmp_path / 'config.json'
    with atomic.replacing(path) as first:
        with atomic.replacing(path) as second:
            first.write(b'first')
            second.write(b'second')
        assert path.read_bytes() == b'second'
    assert path.read_bytes() == b'first' and [*tmp_path.iterdir()] == [path]


def test_who_may_read_a_file_is_as_for_any_other(tmp_path):
    atomic.write_bytes(tmp_path / 'ours', b'')
    (tmp_path / 'other').write_bytes(b'')
    modes = {stat.S_IMODE(os.stat(file).st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_what_a_killed_process_left_can_be_cleared(tmp_path):
    (tmp_path / 'kept').write_bytes(b'')
    (tmp_path / '.vae.safetensors.0123456789abcdef.part').write_bytes(b'half')
    (tmp_path / '.mine.part').write_bytes(b'')
    atomic.clear(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {'kept', '.mine.part'}, 'the user may have such files too'


@pytest.mark.parametrize('name', ['a' * 255, '球' * 85, '🎈' * 63 + 'abc', 'é' * 127], ids=lambda name: name[0])
def test_every_name_that_a_file_can_have_can_be_written(name, tmp_path):
    atomic.write_bytes(tmp_path / name, b'whole')
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {name: b'whole'}


@pytest.mark.parametrize(
    'beginning, ending, longest, fitted',
    [
        ('star', '.mp4', 255, 'star.mp4'),
        ('star', '.mp4', 6, 'st.mp4'),
        ('ééé', '.mp4', 9, 'éé.mp4'),
        ('é球', '', 4, 'é'),
        ('🎈🎈', '-2', 9, '🎈-2'),
        ('\udcff\udcfe', '', 1, '\udcff'),
        ('', '.mp4', 255, '.mp4'),
    ],
)
def test_names_are_cut_by_bytes_after_a_whole_letter(beginning, ending, longest, fitted):
    assert fit(beginning, ending, longest) == fitted
