"""Promises of the streaming denoiser: sizes of the release, identities at the start, what each part sees."""

import dataclasses
import json
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

from st2v_jax.cost import flops
from st2v_jax.models import build
from st2v_jax.models.cam import CODE_WIDTH, Cam, CamConfig, FeatureInjector
from st2v_jax.models.unet3d import UNetConfig

pytestmark = pytest.mark.usefixtures('unoptimised')
TINY = tiny(frames=6, memory=3, frame_size=(64, 64))  # 8x8 latents


@pytest.mark.slow
def test_what_is_not_kept_is_computed_again():
    # one level, without CAM and APM
    network = build.denoiser(dataclasses.replace(TINY, backbone=UNetConfig((8,), (True,), 1, 8, 1, 16, 4)))
    params = {'unet': perturbed(build.init(jax.random.key(0), network)['unet'])}
    rng = np.random.default_rng(1)
    x, text = rng.standard_normal((1, 2, 4, 4, 4), np.float32), rng.standard_normal((1, 77, 16), np.float32)

    def gradient(params, remat):
        def loss(params):
            condition = network(params, text, method='condition')
            return jnp.sum(network(params, x, jnp.array([3]), condition, remat=remat) ** 2)

        return jax.grad(loss)(params)

    kept, least = (jax.jit(gradient, static_argnums=1)(params, remat) for remat in ('none', 'nothing_saveable'))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max()), kept, least)
    work = {
        remat: flops(lambda params, remat=remat: gradient(params, remat), params)
        for remat in ('none', 'dots_saveable', 'nothing_saveable')
    }
    assert work['none'] <= work['dots_saveable'] < work['nothing_saveable'] < 1.5 * work['none']
    with pytest.raises(ValueError, match="remat='all' is not one of none, nothing_saveable"):
        gradient(params, 'all')


def perturbed(params):
    """Parameters none of which is zero or one, so that every path matters."""
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda a: a + 0.1 * rng.standard_normal(a.shape).astype(np.float32), params)


@pytest.fixture(scope='module')
def inputs():
    rng = np.random.default_rng(3)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    return dict(x=normal(2, 6, 8, 8, 4), text=normal(2, 77, 16), frames=normal(2, 3, 64, 64, 3), anchor=normal(2, 16))


@pytest.fixture(scope='module')
def run():
    network = build.denoiser(TINY)

    @partial(jax.jit, static_argnames='texts')
    def run(params, x, text, frames=None, anchor=None, t=(3, 700), texts=1):
        if anchor is not None:
            anchor = network(params, anchor, method='anchor_tokens')
        condition = network(params, text, frames, anchor, texts=texts, method='condition')
        return network(params, x, jnp.asarray(t), condition)

    return run


@pytest.fixture(scope='module')
def params():
    return build.init(jax.random.key(0), build.denoiser(TINY))


def test_parameter_counts_of_the_release():
    config = build.ModelConfig()
    abstract = build.denoiser(config).abstract
    count = build.parameter_count
    assert count(abstract['unet']) == 1_411_233_860
    assert count([abstract['cam'][part] for part in ('encoder', 'extractor')]) == 621_981_664
    assert count([abstract['cam'][part] for part in ('injectors', 'middle_injector')]) == 68_867_200
    assert count(abstract['apm']['mixers']) == 377_744
    assert count(abstract['apm']['anchor']) == 22_299_904


def test_untrained_memory_leaves_the_base_model_as_it_was(run, params, inputs):
    params = {**params, 'unet': perturbed(params['unet'])}
    plain = run(params, inputs['x'], inputs['text'])
    remembering = run(params, inputs['x'], inputs['text'], inputs['frames'], inputs['anchor'])
    chex.assert_shape(plain, (2, 6, 8, 8, 4))
    np.testing.assert_array_equal(plain, remembering)


@pytest.mark.parametrize('name', ['x', 'text', 'frames', 'anchor'])
def test_every_input_matters_once_trained(run, params, inputs, name):
    params = perturbed(params)
    before = run(params, **inputs)
    after = run(params, **{**inputs, name: inputs[name] + 1})
    assert jnp.abs(before - after).max() > 1e-5


def test_the_extractor_sees_only_the_first_noisy_frames_and_the_text(params, inputs):
    network = build.denoiser(TINY)
    params = perturbed(params)

    cam = build.network(Cam, TINY.cam, TINY.backbone)

    @jax.jit
    def features(x, anchor):
        tokens = network(params, anchor, method='anchor_tokens')
        condition = network(params, inputs['text'], inputs['frames'], tokens, method='condition')
        given = jnp.array([3, 700]), condition.extractor, condition.memory
        return cam(params['cam'], x, *given, method='extract')

    changed = inputs['x'].copy()
    changed[:, TINY.memory :] += 1
    chex.assert_trees_all_equal(features(inputs['x'], inputs['anchor']), features(changed, inputs['anchor'] + 1))


@pytest.mark.slow
def test_guidance_branches_that_differ_in_the_anchor_share_what_cam_remembers(run, params, inputs):
    params = perturbed(params)
    branches = [(0, 0), (1, 0), (1, 1)]  # no text, text, text and anchor
    apart, shared = _branches(run, params, inputs, branches, texts=2)
    np.testing.assert_allclose(shared, apart, atol=1e-5)
    assert np.abs(apart[2:4] - apart[4:]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('branches', [[(0, 0), (1, 1)], [(1, 0), (1, 1)], [(1, 1)]])
def test_guidance_branches_share_what_comes_before_the_first_cross_attention(run, params, inputs, branches):
    texts = len({text for text, _ in branches})
    apart, shared = _branches(run, perturbed(params), inputs, branches, texts=texts)
    np.testing.assert_allclose(shared, apart, atol=1e-5)


def _branches(run, params, inputs, branches, *, texts):
    """Predictions in branches of (text, anchor): with x, t and frames for each branch, and with one for all."""
    stacked = lambda values, chosen: np.concatenate([values if own else 0 * values for own in chosen])
    text, anchor = (stacked(inputs[name], chosen) for name, chosen in zip(('text', 'anchor'), zip(*branches)))
    x, frames, t = inputs['x'], inputs['frames'], np.array([3, 700])
    every = lambda values: np.concatenate([values] * len(branches))
    apart = run(params, every(x), text, every(frames), anchor, every(t))
    return apart, run(params, x, text, frames, anchor, t, texts=texts)


def test_layer_norms_in_the_conditioning_encoder_are_the_papers(params):
    paper = dataclasses.replace(TINY, cam=CamConfig((4, 8, 8), head_size=4, layer_norm=True, inject_middle=False))
    abstract = build.denoiser(paper).abstract['cam']
    assert 'norms' in abstract['encoder'] and 'middle_injector' not in abstract


def test_parameters_are_born_from_key_and_path_alone(params):
    again = build.init(jax.random.key(0), build.denoiser(TINY))
    chex.assert_trees_all_equal(params, again)
    other = build.init(jax.random.key(1), build.denoiser(TINY))
    kernel = lambda tree: tree['unet']['encoder']['conv_in']['kernel']
    assert np.abs(kernel(params) - kernel(other)).max() > 0


def test_the_extractor_can_start_as_a_copy_of_the_encoder(params):
    copied = build.copy_encoder(params)
    chex.assert_trees_all_equal(copied['cam']['extractor'], params['unet']['encoder'])
    chex.assert_trees_all_equal_shapes(copied, params)


def test_model_config_survives_json_and_names_every_misfit():
    assert build.ModelConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    values = TINY.to_dict()
    values['backbone']['chanels'] = values['backbone'].pop('channels')
    with pytest.raises(ValueError, match=r'unknown key backbone.chanels; missing key backbone.channels'):
        build.ModelConfig.from_dict(values)


def test_weights_from_before_a_field_have_its_default():
    values = TINY.to_dict()
    del values['cam']['positions']
    assert build.ModelConfig.from_dict(values) == TINY and not TINY.cam.positions


def test_only_codes_tell_the_injector_the_order_of_the_remembered_frames():
    random = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
    plain, coded = (
        build.network(partial(FeatureInjector, positions=on, head_size=4, groups=2), 8) for on in (False, True)
    )
    params = jax.tree.map(lambda leaf: random(leaf.size, *leaf.shape), build.init(jax.random.key(0), plain))
    zeros, codes = (
        {name: {'kernel': of(seed, CODE_WIDTH, 8)} for seed, name in enumerate(('query_code', 'key_code'))}
        for of in (lambda seed, *shape: jnp.zeros(shape), random)
    )
    x, memory = random(1, 1, 4, 2, 2, 8), random(2, 1, 3, 2, 2, 8)
    y = plain(params, x, memory)
    chex.assert_trees_all_close(y, plain(params, x, memory[:, ::-1]), coded({**params, **zeros}, x, memory), atol=1e-5)
    one, other = (coded({**params, **codes}, x, order) for order in (memory, memory[:, ::-1]))
    assert np.abs(one - other).max() > 0.1


def test_a_config_of_another_kind_is_not_read_as_this_one():
    values = TINY.to_dict()
    assert values['backbone']['kind'] == values['refiner']['unet']['kind'] == 'unet'
    values['backbone']['kind'] = 'transformer'
    del values['refiner']['unet']['kind']
    complaints = "backbone.kind is one of unet, not 'transformer'; refiner.unet.kind is one of unet, not None"
    with pytest.raises(ValueError, match=complaints):
        build.ModelConfig.from_dict(values)


def test_a_part_of_a_model_config_that_is_not_a_mapping_is_one_complaint_among_the_others():
    values = {**TINY.to_dict(), 'colour': 'red', 'backbone': [8, 16], 'vae': None}
    with pytest.raises(ValueError, match=r'unknown key colour; backbone is not .* \[8, 16\]; vae is not .* None$'):
        build.ModelConfig.from_dict(values)
    with pytest.raises(ValueError, match="does not fit: it is not a mapping but 'unet'"):
        build.ModelConfig.from_dict('unet')


def test_a_network_is_built_once_however_its_dtype_is_given():
    assert build.vae(TINY) is build.vae(TINY, jnp.float32) is build.vae(TINY, dtype='float32')
    assert build.vae(TINY) is build.vae(dataclasses.replace(TINY, guidance_text=1.0))
    assert build.vae(TINY) != build.vae(TINY, jnp.bfloat16)


@pytest.mark.parametrize(('height', 'width'), [(8, 8), (6, 10), (3, 5)])
def test_any_latent_size_is_denoised(params, height, width):
    network = build.denoiser(TINY)
    x = jnp.ones((1, 2, height, width, 4))

    @jax.jit
    def plain(params, x):
        return network(params, x, jnp.array([5]), network(params, jnp.ones((1, 77, 16)), method='condition'))

    assert plain(params, x).shape == x.shape
