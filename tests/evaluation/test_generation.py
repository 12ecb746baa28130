"""Videos of a study, made in batches."""

import numpy as np
import pytest

from st2v_jax.evaluation import generation
from st2v_jax.evaluation.batches import Batches
from st2v_jax.streaming.generate import load

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_a_video_does_not_depend_on_its_batch_and_none_is_made_twice(tiny_folder, tmp_path, monkeypatch):
    model = load(tiny_folder)
    settings = model.settings(steps=1)
    prompts = ['a red ball moves left'] * 9 + ['a blue star']  # tests have eight devices: two batches
    batches = Batches(tmp_path, {'seed': 1})
    videos = generation.make_videos(model, settings, prompts, 16, seed=1, batch=8, batches=batches)
    alone = generation.make_videos(model, settings, prompts[:9], 16, seed=1, batch=16)
    assert videos.shape == (10, 16, 32, 32, 3) and videos.dtype == np.uint8
    assert np.abs(videos[:9].astype(int) - alone).max() <= 1
    assert (videos[0] != videos[1]).any()
    monkeypatch.setattr(generation, 'METHODS', {})
    again = generation.make_videos(
        model, settings, prompts, 16, seed=1, batch=8, batches=Batches(tmp_path, {'seed': 1})
    )
    assert (again == videos).all()


def test_finished_batches_are_those_of_their_study(tmp_path):
    videos = np.arange(24, dtype=np.uint8).reshape(1, 2, 2, 2, 3)
    one, other = (Batches(tmp_path, {'seed': seed}) for seed in (1, 2))
    one.write(0, videos)
    assert (Batches(tmp_path, {'seed': 1}).read(0) == videos).all() and one.read(1) is other.read(0) is None
    other.write(0, videos)
    one.remove()
    assert one.read(0) is None and (other.read(0) == videos).all()
    other.remove()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(('frames', 'numbers'), [(16, [1, 8, 16]), (20, [1, 8, 16, 20]), (7, [1, 7])])
def test_a_sheet_shows_the_last_frame_once(frames, numbers):
    assert generation.shown(frames) == numbers
