"""The folder of an enhancement belongs to it alone, and says so in one line to everything else."""

import json
import re

import numpy as np
import pytest

from st2v_jax.errors import OutputError
from st2v_jax.refinement.kept import ENCODED, LATENTS, MADE_OF, Encoded, find_encoded, kept, remove
from st2v_jax.storage.lock import locked

ABOUT = {'video': 'a1', 'steps': 12, 'prompts': {'prompt': 'a ball', 'changes': ((12, 'a star'),)}}
LATENTS_SHAPE = (5, 2, 3, 4)


def test_the_same_enhancement_finds_its_folder_again(tmp_path):
    for _ in range(2):
        with kept(tmp_path / 'new', ABOUT) as folder:
            (folder / LATENTS).touch()
    assert {file.name for file in folder.iterdir()} == {MADE_OF, LATENTS}


@pytest.mark.parametrize(
    'change, told',
    [
        ({'video': 'b2'}, 'its video is "a1", not "b2"'),
        ({'steps': 13}, 'its steps is 12, not 13'),
        ({'start': 299}, 'its start is null, not 299'),
        ({'prompts': {'prompt': 'a ball', 'changes': []}}, 'its prompts is {"prompt": "a ball", .*, not {.*}'),
    ],
)
def test_another_enhancement_is_refused_in_one_line(change, told, tmp_path):
    with kept(tmp_path / 'new', ABOUT):
        pass
    before = (tmp_path / 'new' / MADE_OF).read_bytes()
    with pytest.raises(OutputError) as refused, kept(tmp_path / 'new', ABOUT | change):
        pass
    assert re.fullmatch(f'.*new is the enhancement of something else: {told}', str(refused.value)), refused.value
    assert (tmp_path / 'new' / MADE_OF).read_bytes() == before


def test_a_folder_of_other_files_is_not_touched(tmp_path):
    (tmp_path / 'notes.txt').write_text('precious')
    with pytest.raises(OutputError, match='is not an enhancement and not empty'), kept(tmp_path, ABOUT):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ['notes.txt']
    with pytest.raises(OutputError, match='it is a file, not a folder'), kept(tmp_path / 'notes.txt', ABOUT):
        pass
    with pytest.raises(OutputError, match='cannot write .*/no/new'), kept(tmp_path / 'no' / 'new', ABOUT):
        pass


def test_one_run_uses_it_at_a_time(tmp_path):
    busy = pytest.raises(OutputError, match='another run is writing .*new')
    with locked(tmp_path / 'new'), busy, kept(tmp_path / 'new', ABOUT):
        pass


@pytest.mark.parametrize('text', ['', '{', '[]', '\0'])
def test_a_damaged_note_is_refused_in_one_line(text, tmp_path):
    with kept(tmp_path / 'new', ABOUT) as folder:
        (folder / ENCODED).write_text(text)
        with pytest.raises(OutputError, match=r'^the enhancement in .* is damaged: encoded.json .*; remove it to .*$'):
            find_encoded(folder)
    (folder / MADE_OF).write_text(text)
    damaged = pytest.raises(OutputError, match=r'^the enhancement in .* is damaged: .*; remove it to begin anew$')
    with damaged, kept(folder, ABOUT):
        pass


def test_what_a_killed_run_was_writing_goes_and_all_else_stays(tmp_path):
    with kept(tmp_path / 'new', ABOUT) as folder:
        (folder / f'.journal.safetensors.{16 * "a"}.part').touch()
        (folder / 'notes.txt').touch()
    with kept(folder, ABOUT):
        assert {file.name for file in folder.iterdir()} == {MADE_OF, 'notes.txt'}
        (folder / LATENTS).touch()
    remove(folder)
    assert [file.name for file in folder.iterdir()] == ['notes.txt']
    (folder / 'notes.txt').unlink()
    remove(folder)
    assert not folder.exists()


def encoded(folder):
    np.arange(120, dtype=np.float32).tofile(folder / LATENTS)
    return Encoded.of(folder, (16, 24), LATENTS_SHAPE)


def test_encoded_frames_are_found_as_they_were_written(tmp_path):
    assert find_encoded(tmp_path) is None
    found = encoded(tmp_path)
    assert find_encoded(tmp_path) == found and found.size == (16, 24)
    np.testing.assert_array_equal(found.read(tmp_path), np.arange(120, dtype=np.float32).reshape(LATENTS_SHAPE))
    found.forget(tmp_path)
    found.forget(tmp_path)
    assert not (tmp_path / LATENTS).exists()


@pytest.mark.parametrize('damage', [lambda data: data[:-1], lambda data: b'?' + data[1:], lambda data: b''])
def test_damaged_latents_are_refused_in_one_line(damage, tmp_path):
    found = encoded(tmp_path)
    (tmp_path / LATENTS).write_bytes(damage((tmp_path / LATENTS).read_bytes()))
    with pytest.raises(OutputError, match=r'^the enhancement in .* is damaged: latents .*; remove it to begin anew$'):
        found.read(tmp_path)


@pytest.mark.parametrize(
    'change', [{'size': [16]}, {'latents': [5, 2, 3]}, {'latents': [0, 2, 3, 4]}, {'checksum': None}, {'colour': 'red'}]
)
def test_a_note_of_no_video_is_refused(change, tmp_path):
    (tmp_path / ENCODED).write_text(json.dumps(encoded(tmp_path)._asdict() | change))
    with pytest.raises(OutputError, match='is damaged: encoded.json cannot be read'):
        find_encoded(tmp_path)
