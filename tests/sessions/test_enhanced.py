"""The enhanced videos of a session: their prompts, what they are made of, and the command that makes them."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax import load_enhancer, video_io
from st2v_jax.cli.run import main
from st2v_jax.errors import SessionError
from st2v_jax.models.build import ModelConfig
from st2v_jax.refinement.enhancer import enhance
from st2v_jax.sessions.about import writing
from st2v_jax.sessions.branches import Branch, Recipe
from st2v_jax.sessions.enhanced import enhance_branch, node, prompts_of
from st2v_jax.sessions.session import Session
from st2v_jax.streaming.prompt_schedule import PromptSchedule
from st2v_jax.streaming.settings import SampleSettings

CONTRACT = ModelConfig().contract  # chunk 0 brings frames 0 to 15, chunk K brings 8 from 8 (K + 1) on


def recipe(start, prompt, *changes, blend=0):
    return Recipe(start, PromptSchedule(prompt, changes, blend), '', 0, SampleSettings())


@pytest.mark.parametrize(
    'recipes, changes',
    [
        ([recipe(0, 'ball', (24, 'star'), blend=16)], ((24, 'star'),)),  # a single one as it is
        ([recipe(0, 'ball'), recipe(2, 'star')], ((24, 'star'),)),
        ([recipe(0, 'ball'), recipe(2, 'ball'), recipe(3, 'star', (40, 'moon'))], ((32, 'star'), (40, 'moon'))),
        ([recipe(0, 'ball', (24, 'star')), recipe(3, 'ball')], ((24, 'star'), (32, 'ball'))),
        # blended over chunks 1 to 3 by thirds, and the recipe ends in the middle: chunk 2 has more of the star
        ([recipe(0, 'ball', (16, 'star'), blend=16), recipe(3, 'moon')], ((24, 'star'), (32, 'moon'))),
        ([recipe(0, 'ball'), recipe(9, 'star')], ()),  # after the end of the video
    ],
)
def test_a_branch_has_the_prompts_of_its_recipes_from_the_frames_on_that_their_chunks_bring(recipes, changes):
    prompts = prompts_of(Branch('main', tuple(recipes), num_frames=48), CONTRACT)
    assert (prompts.prompt, prompts.changes) == ('ball', changes)


@pytest.fixture
def ball(quick, model, tmp_path, monkeypatch):
    """A session of 24 frames in ./ball, of chunks that are made by arithmetic."""
    monkeypatch.chdir(tmp_path)
    with writing('ball'):
        session = Session.create('ball', model)
        session.start(recipe(0, 'a red ball moves left'), num_frames=24)
        for _ in session.extend():
            pass
    return session


@pytest.fixture(scope='module')
def enhancer(tiny_folder):
    return load_enhancer(tiny_folder, jnp.float32)


def test_an_enhancement_is_of_a_whole_branch_and_has_a_place_of_its_own(ball, enhancer):
    settings = enhancer.settings(steps=2)
    place = lambda settings=settings, **asked: node(ball, 'main', enhancer, settings, **asked).folder
    places = [place(), place(seed=1), place(negative_prompt='sand'), place(settings=enhancer.settings(steps=3))]
    assert len({*places}) == 4 and {folder.parent for folder in places} == {Path('ball/enhanced')}
    assert place(settings=dataclasses.replace(settings, span=2)) == places[0], 'how it is computed is no part of it'
    ball.append('main', num_frames=23)
    assert place() != places[0]
    ball.append('main', num_frames=32)
    with pytest.raises(SessionError, match='^1 chunks of main are not made yet'):
        place()


@pytest.mark.slow
def test_a_branch_is_enhanced_once_and_pruned_with_its_chunks(ball, enhancer, tiny_folder, capsys):
    words = ['--steps', '1', '--output', 'large.mp4', '--quiet', '--weights', str(tiny_folder)]
    assert main(['session', 'enhance', 'ball', *words]) == 0
    settings = enhancer.settings(steps=1, variant=enhancer.config.profile)
    alone = np.concatenate([*enhance(enhancer, np.concatenate([*ball.frames()]), 'a red ball moves left', steps=1)])
    with writing('ball'):
        again = np.concatenate([*enhance_branch(ball, 'main', enhancer, settings=settings)])
    np.testing.assert_array_equal(again, alone)
    written = video_io.read_video('large.mp4')
    assert written.shape == alone.shape
    about = video_io.read_metadata('large.mp4')
    assert about['enhanced']['video'] == f'{ball.branch().chunks[-1]}/24' and 'ball/' not in str(about)
    assert main(['session', 'prune', 'ball']) == 0 and [*Path('ball/enhanced').iterdir()]
    with writing('ball'):
        ball.fork('main', 1, name='other', seed=3)
    for chunk in Path('ball/branches').glob('main.json'):
        chunk.unlink()
    capsys.readouterr()
    assert main(['session', 'prune', 'ball']) == 0
    assert capsys.readouterr().out.endswith('and 1 enhanced videos\n') and not [*Path('ball/enhanced').iterdir()]
