"""Sessions with the networks of the tiny model: bit for bit the video of `generate`, whatever happens on the way."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from st2v_jax.sessions.branches import Recipe
from st2v_jax.sessions.session import Session
from st2v_jax.sessions.verification import EQUAL, of_session
from st2v_jax.streaming import gate
from st2v_jax.streaming.generate import generate
from st2v_jax.streaming.prompt_schedule import PromptSchedule

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('unoptimised')]
PROMPTS = PromptSchedule('a red ball moves left', ((24, 'a blue star over sand'),), blend_frames=8)


def test_every_chunk_in_a_process_of_its_own_makes_the_video_of_generate(model, tmp_path):
    settings = model.settings(steps=2)
    Session.create(tmp_path / 'ball', model).start(Recipe(0, PROMPTS, 'sand', 3, settings), num_frames=40)
    made = []
    for _ in range(4):  # the state is restored from files before each chunk
        steps = Session(tmp_path / 'ball', model).extend()
        made.append(next(step.frames for step in steps if step.frames is not None))
    whole = list(generate(model, PROMPTS, 40, seed=3, negative_prompt='sand', settings=settings))
    np.testing.assert_array_equal(np.concatenate(made), np.concatenate(whole))
    session = Session(tmp_path / 'ball', model)
    np.testing.assert_array_equal(np.concatenate([*session.frames()]), np.concatenate(whole))
    assert [verdict[:2] for verdict in of_session(session, 'main', range(4))] == [(i, EQUAL) for i in range(4)]


def test_runs_that_are_killed_at_random_moments_make_the_same_bytes(tiny_folder):
    """With 8 kills; the same program with 50 is for running by hand."""
    assert killed(tiny_folder, 8) == '11 draws of chunks'


def test_runs_that_draw_chunks_again_and_are_killed_make_the_same_bytes(tiny_folder):
    count, _, _ = killed(tiny_folder, 4, '--gate').partition(' ')
    assert int(count) > 14, 'the 11 chunks, and those that are not kept'


def killed(weights, kills, *options):
    """The first line of benchmarks/session_kills.py, which finds no difference."""
    program = Path(__file__).parents[2] / 'benchmarks' / 'session_kills.py'
    command = [sys.executable, program, '--weights', weights, '--kills', kills, *options]
    done = subprocess.run(list(map(str, command)), cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith(f'{kills} kills, 0 videos differ\n'), done.stdout + done.stderr
    return done.stdout.split('\n')[0]


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
