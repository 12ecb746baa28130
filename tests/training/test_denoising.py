"""The denoising objective at its tiny size: it learns, trains the right networks and uses its conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs_of import stage_config
from training.stage import Stage, random_encoders

from st2v_jax.models import build
from st2v_jax.training import denoising
from st2v_jax.training.batch import Batch, Data

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_it_learns_and_the_freeze_map_holds():
    model = build.ModelConfig.from_dict(stage_config('apm').model.to_dict())
    fresh = build.init(jax.random.key(2), build.denoiser(model))
    apm = Stage('apm', {**random_encoders(), 'unet': fresh['unet'], 'cam': fresh['cam']})
    before = jax.device_get((apm.state.params, apm.frozen))
    losses = apm.run(20)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    trained, frozen = jax.device_get((apm.state.params, apm.frozen))
    jax.tree.map(np.testing.assert_array_equal, before[1], frozen)
    assert set(frozen) == {'unet', 'text'} and set(trained) == {'unet', 'cam', 'apm'}

    def names(tree):
        return {jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in jax.tree.leaves_with_path(tree)}

    temporal = {
        name
        for name in names(apm.objective.params['unet'])
        if any(part in name for part in ('temp_convs', 'temp_attentions', 'transformer_in'))
    }
    assert names(frozen['unet']) == temporal and temporal
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before[0], trained)
    assert all(jax.tree.leaves(moved['apm']))


@pytest.mark.slow
@pytest.mark.parametrize('name, trained', [('add_cond', {'cam'}), ('conc_cond', {'cam', 'unet'})])
def test_ablation_models_train_all_that_is_theirs(name, trained):
    model = build.ModelConfig.from_dict(stage_config(name).model.to_dict())
    random = np.random.default_rng(0)  # a new UNet predicts zero, which would give its memory no gradients
    unet = jax.tree.map(
        lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape, np.float32),
        build.init(jax.random.key(2), build.denoiser(model))['unet'],
    )
    stage = Stage(name, {**random_encoders(), 'unet': unet})
    before = jax.device_get((stage.state.params, stage.frozen))
    assert set(before[0]) == trained and np.isfinite(stage.run(3)).all()
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before[0], jax.device_get(stage.state.params))
    assert all(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, before[1], jax.device_get(stage.frozen))
    networks, model = stage.finish()
    if model.initial:  # first chunks are still made by the UNet that it started from
        jax.tree.map(np.testing.assert_array_equal, networks['initial'], unet)


def test_masks_of_ablation_models_vary_and_half_of_them_are_as_in_sampling():
    made = np.asarray(denoising.masks(jax.random.key(0), 4000, 16, 8))
    sampled = (made == (np.arange(16) < 8)).all(1)
    assert made.shape == (4000, 16) and 0.46 < sampled.mean() < 0.54
    others = made[~sampled]
    assert others.mean(0).min() > 0.45 and others.mean(0).max() < 0.55  # no frame is preferred
    assert set(others.sum(1)) == set(range(17))  # from no frame to all frames


def test_dropped_conditions_are_the_empty_text_and_the_empty_image():
    n = 400
    batch = Batch(None, jnp.ones((n, 3), int), None, jnp.ones((n, 4)))
    data = Data(None, jnp.zeros(3, int), jnp.zeros(4))
    dropped = denoising.drop(jax.random.key(0), batch, data, {'text': 0.2, 'anchor': 0.2, 'both': 0.2})
    no_text, no_anchor = 1 - dropped.ids[:, 0], 1 - dropped.anchor[:, 0]
    for share in (no_text * (1 - no_anchor), no_anchor * (1 - no_text), no_text * no_anchor):
        assert 0.13 < float(share.mean()) < 0.27


def test_stages_need_those_before():
    with pytest.raises(ValueError, match='stage cam starts from vae, text, unet: add them to config.init.networks'):
        Stage('cam', {})


@pytest.mark.slow
def test_plain_examples_are_denoised_as_first_chunks_are_and_the_others_with_memory():
    config = stage_config('apm', **{'trained': 'unet/.*', 'frozen': '', 'batch_size': '4'})
    model = build.ModelConfig.from_dict(config.model.to_dict())
    params = {**random_encoders(), **build.init(jax.random.key(2), build.denoiser(model))}
    params = jax.tree.map(lambda leaf: leaf + 0.05, params)  # new networks predict zero
    random = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
    frames = jnp.clip(random(0, 4, model.conditioning_frames, *model.frame_size, 3), -1, 1)
    batch = Batch(
        random(1, 4, *model.latent_shape), jnp.ones((4, 77), int), frames, random(2, 4, model.image.embed_dim)
    )
    examples = batch, random(3, 4, *model.latent_shape), jnp.array([100, 900, 500, 300])

    def loss(rows, plain=0, **without):
        some = jax.tree.map(lambda leaf: leaf[jnp.array(rows)], examples)
        some = (some[0]._replace(**without), *some[1:])
        config.plain = plain
        return float(denoising.functions(config, model)[1](params, some)[0])

    first = loss([0, 2], frames=None, anchor=None)
    rest = loss([1, 3])
    assert first != pytest.approx(loss([0, 2]), rel=1e-3)  # memory and anchor make a difference
    assert loss([0, 1, 2, 3], plain=2) == pytest.approx((first + rest) / 2, rel=1e-5)


def test_plain_examples_are_a_part_of_the_batch():
    with pytest.raises(ValueError, match='with plain=3, the examples of a batch are a multiple of 3, not 4'):
        config = stage_config('apm', plain='3', batch_size='4')
        denoising.objective(config, build.ModelConfig.from_dict(config.model.to_dict()), {}, None, None, None)
