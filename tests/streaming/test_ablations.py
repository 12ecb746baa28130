"""Ablation models are streamed by the same iterator: their videos continue, chunk by chunk."""

import dataclasses

import jax
import numpy as np
import pytest

from st2v_jax import errors
from st2v_jax.convert import to_diffusers
from st2v_jax.models import build
from st2v_jax.models.system import encode_prompt, system
from st2v_jax.open_model import load_weights, open_model
from st2v_jax.streaming import stream
from st2v_jax.streaming.settings import settings_for
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.weights.folder import save
from st2v_jax.weights.layout import streaming

pytestmark = pytest.mark.usefixtures('unoptimised')
MODELS = {  # what differs from the full model
    'no_apm': {'fusion': 'attention'},
    'add_cond': {'fusion': 'addition'},
    'conc_cond': {'fusion': 'concatenation', 'initial': True},
}


@pytest.fixture(scope='module', params=MODELS)
def model(request, tiny_config, tiny_params):
    """(config, parameters) of an ablation model."""
    changes = dict(MODELS[request.param])
    cam = dataclasses.replace(tiny_config.cam, fusion=changes.pop('fusion'))
    config = dataclasses.replace(tiny_config, cam=cam, apm=None, **changes)
    params = build.init(jax.random.key(1), build.denoiser(config))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.2 * random.standard_normal(leaf.shape, np.float32), params)
    params |= {name: tiny_params[name] for name in ('vae', 'text')}
    return config, params | ({'initial': tiny_params['unet']} if config.initial else {})


@pytest.fixture(scope='module')
def chunks(model):
    """(frames of the first chunk, the state after it, a function from a state to the next chunk)."""
    config, params = model
    networks = system(config)
    settings = settings_for(config, steps=2)
    ids = np.zeros((1, 77), np.int32)
    prompt = encode_prompt(networks, params, ids + 2, ids)
    advance = lambda state: stream.next_chunk(networks, settings, params, prompt, state)
    first, state = advance(stream.start(stream.video_keys([3])))
    return first, state, advance


@pytest.mark.slow
def test_a_chunk_goes_on_from_the_frames_before_it(chunks, model):
    config, _ = model
    first, state, advance = chunks
    second, after = advance(state)
    assert first.shape[1] == config.frames and second.shape[1] == config.frames - config.memory
    assert np.isfinite(second).all() and state.anchor is None and int(after.index) == 2
    other, _ = advance(state._replace(frames=-state.frames))
    assert np.abs(other - second).max() > 1e-3


def test_it_is_saved_and_loaded_like_any_other(model, tmp_path):
    config, params = model
    save(tmp_path, config, params, np.float32, Tokenizer.for_words(('a', 'red', 'ball')))
    again, loaded = load_weights(tmp_path)
    assert again == config and set(loaded) == set(params) == set(streaming(config))
    jax.tree.map(np.testing.assert_array_equal, params, loaded)


def test_the_published_formats_have_no_place_for_it(model, tmp_path, tiny_folder):
    config, _ = model
    save(tmp_path / 'ours', config, {}, tokenizer=open_model(tiny_folder).tokenizer())
    with pytest.raises(errors.WeightsError, match='is an ablation model'):
        to_diffusers.export(tmp_path / 'ours', tmp_path / 'theirs')
