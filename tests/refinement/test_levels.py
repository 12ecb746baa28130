"""Latents between two steps lie on the disk in two generations; what a journal says is complete is complete."""

import os
import resource

import numpy as np
import pytest

from st2v_jax.errors import OutputError
from st2v_jax.refinement.levels import FILES, JOURNAL, Levels, remove

SHAPE, TAIL, STEPS = (1, 10, 2, 3, 4), (1, 2, 2, 3, 4), 3


def filled(number, frames=10):
    return np.full((1, frames, *SHAPE[2:]), number, np.float32)


def find(folder, steps=STEPS):
    return Levels.find(SHAPE, TAIL, steps, folder)


def half_done(folder):
    """Levels in the middle of the second step."""
    levels = Levels(SHAPE, TAIL, folder)
    levels.write(slice(0, 6), filled(1, 6), 0)
    levels.write(slice(6, 10), filled(2, 4), 0)
    levels.finish()
    levels.write(slice(None), filled(3), filled(4))
    levels.finish()
    levels.write(slice(0, 6), filled(5, 6), filled(6, 6))
    levels.pass_on(2, 6, filled(7, 2))
    return levels


def test_a_folder_without_a_journal_has_nothing(tmp_path):
    levels = Levels(SHAPE, TAIL, tmp_path)
    levels.write(slice(None), filled(1), 0)
    assert find(tmp_path) is None and levels.done == -1


def test_what_is_noted_is_found_and_the_step_goes_on(tmp_path):
    half_done(tmp_path)
    found = find(tmp_path)
    assert (found.done, found.chunk) == (1, 2)
    for array, number in ((found.x, 3), (found.x0, 4), (found.tail, 7)):
        assert (array == number).all()
    found.write(slice(6, 10), filled(8, 4), filled(9, 4))
    found.finish()
    for levels in (found, find(tmp_path)):
        assert (levels.done, levels.chunk) == (2, 0) and not levels.tail.any()
        assert levels.x[0, :, 0, 0, 0].tolist() == [5] * 6 + [8] * 4
        assert levels.x0[0, :, 0, 0, 0].tolist() == [6] * 6 + [9] * 4


def test_what_is_not_noted_does_not_matter(tmp_path):
    levels = half_done(tmp_path)
    levels.write(slice(6, 10), filled(99, 4), filled(99, 4))  # and then it was killed
    found = find(tmp_path)
    assert (found.done, found.chunk) == (1, 2) and (found.x == 3).all()
    found.write(slice(6, 10), filled(8, 4), filled(9, 4))
    found.finish()
    found.write(slice(0, 6), filled(99, 6), filled(99, 6))  # killed in the first span of a step
    assert find(tmp_path).x[0, :, 0, 0, 0].tolist() == [5] * 6 + [8] * 4


def test_of_a_complete_refinement_the_result_is_kept(tmp_path):
    levels = half_done(tmp_path)
    levels.write(slice(6, 10), filled(8, 4), filled(9, 4))
    levels.finish()
    assert len(list(tmp_path.iterdir())) == 5
    assert find(tmp_path, steps=2).x0 is None, 'killed before the other files went'
    levels.keep_result()
    assert {file.name for file in tmp_path.iterdir()} == {'x-0', JOURNAL}
    assert find(tmp_path, steps=2).x[0, :, 0, 0, 0].tolist() == [5] * 6 + [8] * 4
    remove(tmp_path)
    assert not list(tmp_path.iterdir())


def cut(file):
    os.truncate(file, file.stat().st_size - 1)


def flip(file):
    data = bytearray(file.read_bytes())
    data[8 if file.name != JOURNAL else 0] ^= 1
    file.write_bytes(data)


def empty(file):
    file.write_bytes(b'')


@pytest.mark.parametrize('damage', [cut, flip, empty, os.remove])
@pytest.mark.parametrize('name', [*FILES[0], *FILES[1], JOURNAL])
def test_damage_is_refused_in_one_line(name, damage, tmp_path):
    half_done(tmp_path)
    damage(tmp_path / name)
    if name == JOURNAL and damage is os.remove:
        assert find(tmp_path) is None, 'as if nothing had been done'
        return
    with pytest.raises(OutputError) as refused:
        find(tmp_path)
    message = str(refused.value)
    assert message.startswith(f'the enhancement in {tmp_path} is damaged: {name} ') and '\n' not in message
    assert message.endswith('; remove it to begin anew') and len(message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    'shape, tail, steps', [((1, 11, 2, 3, 4), TAIL, 3), (SHAPE, (1, 3, 2, 3, 4), 3), (SHAPE, TAIL, 0)]
)
def test_the_journal_of_another_video_is_refused(shape, tail, steps, tmp_path):
    half_done(tmp_path)
    with pytest.raises(OutputError, match='is damaged: journal.safetensors cannot be read'):
        Levels.find(shape, tail, steps, tmp_path)


def test_a_full_disk_names_the_file_and_loses_nothing(tmp_path):
    levels = half_done(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match='File too large') as full:
            levels.finish()
        assert full.value.filename == str(tmp_path / JOURNAL)
        with pytest.raises(OSError, match='File too large') as full:
            Levels(SHAPE, TAIL, tmp_path / '..').write(slice(None), filled(1), 0)
        assert os.path.basename(full.value.filename) == 'x-0'
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (tmp_path / '..' / 'x-0').unlink()
    assert (find(tmp_path).done, find(tmp_path).chunk) == (1, 2)
    assert not list(tmp_path.glob('.*'))
