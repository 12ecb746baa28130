"""Previews of a model in training."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny import WORDS

from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training import previews
from st2v_jax.video_io import VideoReader

pytestmark = pytest.mark.usefixtures('unoptimised')
SETTINGS = ConfigDict({'prompts': ('a red ball', 'a blue star'), 'frames': 20, 'steps': 2})


@pytest.mark.slow
@pytest.mark.parametrize('lacking, frames', [(('apm',), 20), (('cam', 'apm', 'image'), 16)])
def test_what_is_there_draws_as_far_as_it_can(lacking, frames, tiny_config, tiny_params, tmp_path):
    params = {name: tree for name, tree in tiny_params.items() if name not in lacking}
    path = tmp_path / 'step-0000010.mp4'
    picture = previews.write(SETTINGS, path, params, tiny_config, Tokenizer.for_words(WORDS), jnp.float32)
    side, _ = tiny_config.frame_size
    assert picture.shape == (2 * side, previews.SHOWN * side, 3) and picture.std() > 0
    video = np.concatenate(list(VideoReader(path)))
    assert video.shape == (frames, side, 2 * side, 3)
