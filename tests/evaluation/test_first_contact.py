"""The step that published weights are tried with: the sampler's own programs, the same inputs in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.evaluation import first_contact
from st2v_jax.models import build
from st2v_jax.models.system import encode_prompt
from st2v_jax.open_model import open_model
from st2v_jax.planning.video import abstract_model, resident
from st2v_jax.streaming import generate, stream

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.fixture(scope='module')
def opened(exported):
    return first_contact.open_all([exported])


def test_what_it_takes_is_told_before_anything_is_read(opened, tiny_config):
    needs = first_contact.needs(opened)
    model = abstract_model(opened, jnp.float32)
    assert needs['float32'].resident == resident(model) == 4 * build.parameter_count(model.params)
    assert needs['bfloat16'].resident < 0.6 * needs['float32'].resident
    latents = 4 * np.prod(tiny_config.contract.latent_shape(False))
    assert all(need.total > need.temporary > latents / 2 for need in needs.values())


@pytest.fixture(scope='module')
def steps(opened):
    return {dtype: first_contact.one_step(opened, dtype) for dtype in first_contact.DTYPES}


@pytest.fixture
def computed(steps, monkeypatch):
    """`compare` finds the steps computed; the arrays of one test."""
    made = jax.tree.map(np.copy, steps)
    monkeypatch.setattr(first_contact, 'one_step', lambda opened, dtype: made[dtype])
    return made


def test_both_precisions_begin_with_the_same_and_end_close(opened, computed):
    for chunk in ('first chunk', 'later chunk'):
        for part in ('prediction', 'latents'):
            exact, half = (computed[dtype][chunk][part] for dtype in first_contact.DTYPES)
            assert exact.shape == half.shape == (1, 16, 4, 4, 4)
            assert 0 < np.abs(exact - half).max() < exact.std()
    told = []
    for chunk in first_contact.compare(opened, on_dtype=told.append).values():
        assert chunk['finite'] == {'float32': True, 'bfloat16': True}
        assert 0 < chunk['apart']['latents'] < chunk['apart']['prediction'] < 0.3
    assert told == ['float32', 'bfloat16']


def test_one_precision_alone_is_told_to_be_finite(opened, computed):
    alone = first_contact.compare(opened, ['bfloat16'])
    assert alone['first chunk'] == {'finite': {'bfloat16': True}, 'apart': {'prediction': None, 'latents': None}}


def test_the_distance_is_relative(opened, computed):
    computed['bfloat16'] = jax.tree.map(lambda a: a * np.float32(1.25), computed['float32'])
    for chunk in first_contact.compare(opened).values():
        np.testing.assert_allclose([*chunk['apart'].values()], 0.25, rtol=1e-6)


def test_what_is_not_finite_is_told_and_not_measured(opened, computed):
    computed['bfloat16']['later chunk']['prediction'][0, 3, 2, 1, 0] = np.nan
    found = first_contact.compare(opened)
    assert found['later chunk']['finite'] == {'float32': True, 'bfloat16': False}
    assert found['later chunk']['apart']['prediction'] is None and found['later chunk']['apart']['latents'] > 0
    assert found['first chunk']['finite'] == {'float32': True, 'bfloat16': True}


def test_the_step_is_the_first_that_the_sampler_takes(opened, steps):
    model = generate.load(opened, jnp.float32)
    settings, state = model.settings(), stream.start(stream.video_keys([first_contact.SEED]))
    ids, null_ids = (model.tokenizer.ids([text]) for text in (first_contact.PROMPT, ''))
    context = encode_prompt(model.system, model.params, ids, null_ids)
    *_, made = next(stream.denoised(model.system, settings, model.params, context, state))
    np.testing.assert_array_equal(made.x, steps['float32']['first chunk']['latents'])


def test_several_places_make_one_model(exported):
    assert first_contact.open_all([exported / 'vae', exported]).held == open_model(exported).held
    assert jax.tree.leaves(first_contact.open_all([exported]).params(['apm']))
