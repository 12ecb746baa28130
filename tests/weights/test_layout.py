"""A config says which networks a model has, which stage needs which, and what shapes their parameters have."""

import dataclasses
import json
from pathlib import Path

import pytest

from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.weights import layout

RELEASED = build.ModelConfig()
WHOLE = layout.streaming(RELEASED)


def test_the_released_refiner_has_an_autoencoder_and_a_text_tower_of_its_own():
    assert layout.refinement(RELEASED) == {'refiner': 'refiner', 'vae': 'refiner_vae', 'text': 'refiner_text'}
    trees = layout.abstract(RELEASED, ('refiner_vae', 'refiner_text'))
    sizes = {name: build.parameter_count(tree) for name, tree in trees.items()}
    manifests = Path(__file__).parents[1] / 'manifests'
    count = lambda name: json.loads((manifests / f'{name}.json').read_text())['n_elements']
    # the text tower leaves out open_clip's last block, so it is as large as that of the streaming stage
    assert sizes == {'refiner_vae': count('vid2vid_vae_first_stage'), 'refiner_text': count('ms17b_text_encoder')}


def test_a_refiner_may_share_them_with_the_streaming_stage(tiny_config):
    assert layout.refinement(tiny_config) == {'refiner': 'refiner', 'vae': 'vae', 'text': 'text'}
    assert layout.networks(tiny_config) == (*WHOLE, 'refiner')
    assert tiny_config.for_refinement.scale_factor == tiny_config.scale_factor
    with pytest.raises(ValueError, match='no such network: refiner_vae; the model has vae, .*refiner'):
        layout.abstract(tiny_config, ('refiner_vae',))


def test_the_streaming_stage_has_what_the_config_asks_for():
    assert layout.streaming(RELEASED) == ('vae', 'text', 'image', 'unet', 'cam', 'apm')
    assert layout.streaming(dataclasses.replace(RELEASED, apm=None)) == ('vae', 'text', 'unet', 'cam')
    assert layout.streaming(dataclasses.replace(RELEASED, initial=True)) == (*WHOLE, 'initial')


def test_what_sampling_needs_depends_on_what_is_held():
    video_ldm = ('vae', 'text', 'unet')
    assert layout.sampled(RELEASED, video_ldm) == video_ldm
    assert layout.sampled(RELEASED, (*video_ldm, 'refiner')) == video_ldm
    assert layout.sampled(RELEASED, WHOLE) == WHOLE
    assert layout.sampled(RELEASED, (*video_ldm, 'cam')) == WHOLE, 'a streaming model that lacks something'


def test_trees_are_of_the_networks_asked_for(tiny_config):
    trees = layout.abstract(tiny_config, ('apm', 'text'))
    assert list(trees) == ['apm', 'text']
    assert layout.abstract(tiny_config, ()) == {}
    first = dataclasses.replace(tiny_config, initial=True)
    assert layout.abstract(first, ['initial'])['initial'] == layout.abstract(first, ['unet'])['unet']


def test_a_text_tower_has_a_row_for_each_token():
    layout.check_tokenizer(Tokenizer(), 49408, 'here')
    with pytest.raises(WeightsError, match='here: the text tower has 12 rows, its tokenizer 49408'):
        layout.check_tokenizer(Tokenizer(), 12, 'here')
