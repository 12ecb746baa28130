"""Sessions with the networks of the tiny model: bit for bit the video of `generate`, whatever happens on the way."""

import io
import itertools
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from st2v_jax.sessions.branches import Recipe
from st2v_jax.sessions.session import Session
from st2v_jax.sessions.verification import EQUAL, of_session
from st2v_jax.streaming import gate
from st2v_jax.streaming.generate import generate, load
from st2v_jax.streaming.own_start import opening
from st2v_jax.streaming.prompt_schedule import PromptSchedule
from st2v_jax.video_io import VideoWriter
from st2v_jax.video_io.start import Start
from st2v_jax.web.preview import preview

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('unoptimised')]
PROMPTS = PromptSchedule('a red ball moves left', ((24, 'a blue star over sand'),), blend_frames=8)


def test_every_chunk_in_a_process_of_its_own_makes_the_video_of_generate(model, tmp_path):
    settings = model.settings(steps=2)
    Session.create(tmp_path / 'ball', model).start(Recipe(0, PROMPTS, 'sand', 3, settings), num_frames=40)
    made = []
    for _ in range(4):  # the state is restored from files before each chunk
        session = Session(tmp_path / 'ball', model)
        early, last = itertools.islice(session.extend(), 2)
        made.append(last.frames)
        assert early.frames is None and Image.open(io.BytesIO(preview(session, 'main', early))).size == (32, 32)
    whole = list(generate(model, PROMPTS, 40, seed=3, negative_prompt='sand', settings=settings))
    np.testing.assert_array_equal(np.concatenate(made), np.concatenate(whole))
    session = Session(tmp_path / 'ball', model)
    np.testing.assert_array_equal(np.concatenate([*session.frames()]), np.concatenate(whole))
    assert [verdict[:2] for verdict in of_session(session, 'main', range(4))] == [(i, EQUAL) for i in range(4)]


def test_a_gate_keeps_the_same_draws_with_and_without_a_session(model, tmp_path, monkeypatch):
    monkeypatch.setitem(gate.LIMITS, 'cut', 0.8)
    settings, prompt, again = model.settings(steps=2), PromptSchedule('a red ball moves left'), gate.Gate('reroll', 2)
    session = Session.create(tmp_path / 'ball', model, tell=list)
    session.start(Recipe(0, prompt, '', 3, settings, again), num_frames=48)
    made = []
    while session.missing(session.branch()):  # the state is restored from files before each chunk
        made.append(next(step.frames for step in session.extend() if step.frames is not None))
    told = []
    whole = [*generate(model, prompt, 48, seed=3, settings=settings, gate=again, tell=told.append)]
    np.testing.assert_array_equal(np.concatenate(made), np.concatenate(whole))
    assert any(session.branch().draws) and len(told) == sum('draws' in entry for entry in session.journal())
    assert [verdict[:2] for verdict in of_session(session, 'main', range(5))] == [(i, EQUAL) for i in range(5)]


def given(count, size=(32, 32)):
    """Frames of noise, uint8 [count, H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


@pytest.mark.parametrize('count, size', [(12, (48, 32)), (1, (32, 48))], ids=['clip', 'picture'])
def test_what_follows_a_start_is_the_video_of_generate_at_any_size(tiny_folder, tmp_path, count, size):
    model = load(tiny_folder, jnp.float32, size)
    settings, start = model.settings(steps=3), Start(given(count, size), is_picture=count == 1)
    recipe = Recipe(0, PromptSchedule(PROMPTS.prompt), '', 3, settings)
    Session.create(tmp_path / 'ball', model).start(recipe, num_frames=24, start=start)
    session = Session(tmp_path / 'ball', model)
    while session.missing(session.branch()):  # the state is restored from files before each chunk
        session = Session(tmp_path / 'ball', model)
        next(step for step in session.extend() if step.frames is not None)
    whole = list(generate(model, PROMPTS.prompt, 24, state=opening(model, start, seed=3), settings=settings))
    np.testing.assert_array_equal(np.concatenate([*session.frames()]), np.concatenate(whole))
    assert {verdict for _, verdict, _ in of_session(session, 'main')} == {EQUAL}


@pytest.mark.parametrize('kind, kills', [('plain', 8), ('clip', 2), ('picture', 2), ('gate', 3)])
def test_runs_that_are_killed_at_random_moments_make_the_same_bytes(tiny_folder, tmp_path, kind, kills):
    """The same program with 50 kills is for running by hand."""
    root, command = Path(__file__).parents[2], []
    if kind == 'clip':
        with VideoWriter(f'{tmp_path}/clip/', 8, (32, 32)) as video:
            video.write(given(12))
        command = ['--start', tmp_path / 'clip']
    if kind == 'picture':
        Image.fromarray(given(1)[0]).save(tmp_path / 'one.png')
        command = ['--start', tmp_path / 'one.png']
    if kind == 'gate':
        command = ['--gate']
    command = [sys.executable, 'benchmarks/session_kills.py', '--weights', tiny_folder, '--kills', kills, *command]
    done = subprocess.run(list(map(str, command)), cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith(f'{kills} kills, 0 videos differ\n'), done.stdout + done.stderr
