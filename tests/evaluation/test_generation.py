"""Videos of a study, made in batches."""

import numpy as np
import pytest

from st2v_jax.evaluation import generation
from st2v_jax.streaming.generate import load

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_a_video_does_not_depend_on_its_batch(tiny_folder):
    model = load(tiny_folder)
    settings = model.settings(steps=1)
    prompts = ['a red ball moves left'] * 9 + ['a blue star']  # tests have eight devices: two batches
    videos = generation.make_videos(model, settings, prompts, 16, seed=1, batch=8)
    alone = generation.make_videos(model, settings, prompts[:9], 16, seed=1, batch=16)
    assert videos.shape == (10, 16, 32, 32, 3) and videos.dtype == np.uint8
    assert np.abs(videos[:9].astype(int) - alone).max() <= 1
    assert (videos[0] != videos[1]).any()


@pytest.mark.parametrize(('frames', 'numbers'), [(16, [1, 8, 16]), (20, [1, 8, 16, 20]), (7, [1, 7])])
def test_a_sheet_shows_the_last_frame_once(frames, numbers):
    assert generation.shown(frames) == numbers
