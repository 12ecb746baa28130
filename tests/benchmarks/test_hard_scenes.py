"""Scenes made hard for memory: what is out of sight when, that prompts do not give it away, and the whole program."""

import json

import numpy as np
import pytest

pytest.importorskip('cv2')
import hard_scenes as study

from st2v_jax.data import world
from st2v_jax.data.world.captions import PATTERN_WORDS, PLACE_WORDS

MEMORY = range(study.GIVEN - 8, study.GIVEN)


@pytest.mark.parametrize('frame', [0, 8, study.AWAY, *MEMORY, 60, 90, 103])
@pytest.mark.parametrize('side', [-1, 1])
def test_all_is_plain_before_and_after_and_gone_in_between(frame, side):
    for name, place in study.KINDS.items():
        shift, size, camera = place(frame, side)
        if frame <= study.AWAY or frame > 85:
            assert size == 1 and not shift.any() and not camera.any()
        elif name == 'shrinks' and frame in MEMORY:
            assert size < 0.2 and not shift.any()
        elif frame in MEMORY:  # an object that swings by a quarter of the frame is outside of it
            assert shift[0] * side > 1 or (name == 'turns' and shift[0] * -side > 1)
    steps = np.diff([study.turns(each, side).camera[0] for each in MEMORY]) / 256
    assert abs(steps * side + study.PAN).max() < 0.01


@pytest.fixture(scope='module')
def scenes():
    return study.hard_scenes(1, 6)


@pytest.mark.slow
def test_the_object_is_not_in_the_memory_and_prompts_tell_neither_pattern_nor_ground(scenes):
    bare = scenes._replace(count=0 * scenes.count)
    assert (scenes.pattern[:, 0] > 0).all() and (world.held_out(scenes)).all()
    for kind in ('leaves', 'turns'):
        with_object, without = (study.rendered(some, kind, MEMORY, 32) for some in (scenes, bare))
        np.testing.assert_array_equal(with_object, without)
    plain = np.stack([world.render(study.jax.tree.map(lambda leaf, i=i: leaf[i], scenes), np.arange(3), 32)
                      for i in range(6)])  # fmt: skip
    for kind in study.KINDS:
        np.testing.assert_array_equal(study.rendered(scenes, kind, range(3), 32), study.to_uint8(plain))
    patterns = {word for words in PATTERN_WORDS.values() for word in words}
    places = {phrase.split()[-1] for phrases in PLACE_WORDS.values() for phrase in phrases}
    for prompt in study.brief(scenes):
        assert not (patterns | places) & set(prompt.split())


@pytest.mark.slow
def test_an_object_is_back_where_pixels_of_its_colour_are(scenes):
    colour = np.asarray(scenes.colour)[:, 0]
    for kind in study.KINDS:
        before, hidden, after = (
            study.rendered(scenes, kind, frames, 64) for frames in (range(16), MEMORY, range(88, 104))
        )
        was, gone, now = (study.coloured(clips, colour) for clips in (before, hidden, after))
        assert (gone < 0.35 * was).all() and (now > study.ENOUGH * was).all()
        bare = study.rendered(scenes._replace(count=0 * scenes.count), kind, range(88, 104), 64)
        assert (study.coloured(bare, colour) - gone < 0.2 * (was - gone)).all()


@pytest.mark.slow
@pytest.mark.usefixtures('unoptimised')
def test_videos_are_made_once_and_compared_with_what_was_shown(tiny_folder, tmp_path, monkeypatch):
    from st2v_jax.cli.run import main

    checker, out = tmp_path / 'checker.npz', tmp_path / 'out'
    assert main(['evaluate', 'train-checker', '--checker', str(checker), '--size', '32', '--tiny', '--steps', '2']) == 0
    words = ['--checker', str(checker), '--out', str(out), '--json', str(tmp_path / 'found.json')]
    words += [
        '--scenes',
        '2',
        '--frames',
        '16',
        '--steps',
        '1',
        '--method',
        f'CAM=no-anchor:{tiny_folder}',
        '--method',
        f'Both=streaming:{tiny_folder}',
    ]

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, 'compared', stop)
    with pytest.raises(KeyboardInterrupt):
        study.main(words)
    made = [np.stack([np.load(file) for file in sorted((out / name).rglob('*.npy'))]) for name in ('CAM', 'Both')]
    assert made[0].shape == (3, 2, 16, 32, 32, 3) and (made[0] != made[1]).any()  # by the anchor
    monkeypatch.undo()
    monkeypatch.setattr(study, 'continued', stop)  # all videos are there
    assert study.main(words) == 0
    found = json.loads((tmp_path / 'found.json').read_text())
    assert list(found['kinds']) == list(study.KINDS) and found['made']['methods']['CAM'] == f'no-anchor:{tiny_folder}'
    for kind in found['kinds'].values():
        assert list(kind) == ['truth', 'CAM', 'Both', 'others']
        assert all(len(values) == 2 for numbers in kind.values() for values in numbers.values())
    assert (tmp_path / 'found.jpg').exists() and not list(out.rglob('*.npy'))
