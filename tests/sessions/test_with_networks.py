"""Sessions with the networks of the tiny model: bit for bit the video of `generate`, whatever happens on the way."""

import io
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st2v_jax.sessions.branches import Recipe
from st2v_jax.sessions.session import Session
from st2v_jax.sessions.verification import EQUAL, of_session
from st2v_jax.streaming.generate import generate
from st2v_jax.streaming.prompt_schedule import PromptSchedule
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


def test_runs_that_are_killed_at_random_moments_make_the_same_bytes(tiny_folder):
    """With 8 kills; the same program with 50 is for running by hand."""
    program = Path(__file__).parents[2] / 'benchmarks' / 'session_kills.py'
    command = [sys.executable, program, '--weights', tiny_folder, '--kills', '8']
    done = subprocess.run(list(map(str, command)), cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith('8 kills, 0 videos differ\n'), done.stdout + done.stderr
