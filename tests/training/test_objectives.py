"""The objectives of the stages at their tiny size: that each learns, and from what."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from configs_of import stage_config

from st2v_jax import sharding, trees
from st2v_jax.data import captions, world
from st2v_jax.models import build
from st2v_jax.training import autoencoder, contrastive, denoising, loop, state, step
from st2v_jax.training import refiner as refinement

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.fixture(scope='module')
def encoders():
    """Random weights of the networks that the denoising stages do not train."""
    model = build.ModelConfig.from_dict(stage_config('apm').model.to_dict())
    doors = {'vae': build.vae, 'text': build.text_tower, 'image': build.image_tower}
    return {name: build.init(jax.random.key(1), door(model)) for name, door in doors.items()}


class Stage:
    """The objective of a stage, ready to step on some devices."""

    def __init__(self, name, params, devices=1):
        self.config = stage_config(name)
        self.mesh = sharding.make_mesh({'data': -1}, jax.devices()[:devices])
        self.model = build.ModelConfig.from_dict(self.config.model.to_dict())
        tokenizer = captions.tokenizer_for(self.model.text.vocab_size)
        self.objective = loop.OBJECTIVES[name](self.config, self.model, params, tokenizer, self.mesh, jax.random.key(0))
        trained, frozen = state.split(self.objective.params, self.objective.trained)
        self.optimizer = step.make_optimizer(**self.config.optimizer)
        everywhere = sharding.replicated(self.mesh)
        self.state = jax.device_put(state.create(trained, self.optimizer), everywhere)
        self.frozen = jax.device_put(frozen, everywhere)
        rate = lambda _: self.config.schedule.peak
        one = step.make_step(self.objective.draw, self.objective.loss, self.optimizer, rate=rate, ema_decay=0.9)
        self.step = jax.jit(one, compiler_options=self.config.compiler_options.to_dict())

    def run(self, steps):
        """The losses of that many steps."""
        losses, key, data = [], jax.random.key(0), self.objective.data
        for _ in range(steps):
            self.state, metrics = self.step(self.state, self.frozen, data, np.float32(0), key)
            losses.append(float(metrics['loss']))
        return losses


@pytest.mark.slow
@pytest.mark.parametrize('name', ['autoencoder', 'clip'])
def test_encoders_learn(name):
    stage = Stage(name, {})
    losses = stage.run(60)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    networks, model = stage.objective.finish(trees.join(stage.state.params, stage.frozen), stage.model)
    if name == 'autoencoder':
        # the scale makes latents of unit deviation
        frames = autoencoder.draw_frames(jax.random.key(9), stage.objective.data, 0, model.image_size)
        latents, _ = build.vae(model)(networks['vae'], frames, method='encode')
        assert 0.3 < float(jnp.std(latents * model.scale_factor)) < 3
    else:
        assert set(networks) == {'text', 'image'}


@pytest.fixture(scope='module')
def apm(encoders):
    """The last stage, which has all the parts of the two before."""
    key = jax.random.key(2)
    model = build.ModelConfig.from_dict(stage_config('apm').model.to_dict())
    fresh = build.init(key, build.denoiser(model))
    return Stage('apm', {**encoders, 'unet': fresh['unet'], 'cam': fresh['cam']})


@pytest.mark.slow
def test_denoising_learns_and_the_freeze_map_holds(apm):
    before = jax.device_get((apm.state.params, apm.frozen))
    losses = apm.run(20)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    trained, frozen = jax.device_get((apm.state.params, apm.frozen))
    jax.tree.map(np.testing.assert_array_equal, before[1], frozen)
    assert set(frozen) == {'unet', 'text'} and set(trained) == {'unet', 'cam', 'apm'}

    def names(tree):
        return {jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in jax.tree.leaves_with_path(tree)}

    temporal = {name for name in names(apm.objective.params['unet'])
                if any(part in name for part in ('temp_convs', 'temp_attentions', 'transformer_in'))}
    assert names(frozen['unet']) == temporal and temporal
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before[0], trained)
    assert all(jax.tree.leaves(moved['apm']))


@pytest.mark.slow
def test_the_memory_of_a_batch_is_the_beginning_of_what_is_denoised(apm):
    videos = apm.objective.data.videos
    assert videos.pixels.dtype == jnp.uint8 and videos.latents.dtype == jnp.float16
    batch = denoising.draw(jax.random.key(5), videos, apm.model, anchored=True)
    again = denoising.draw(jax.random.key(5), videos, apm.model, anchored=True)
    jax.tree.map(np.testing.assert_array_equal, batch, again)
    f, m = apm.model.frames, apm.model.memory
    for i in range(len(batch.ids)):
        # samples are two chunks long: of frames 1-32, 17-32 are denoised, 17-24 condition, the anchor is one of 1-16
        row = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), videos)
        (scene,) = [n for n in range(len(row.latents)) if (row.latents[n, f:] == np.float16(batch.latents[i])).all()]
        np.testing.assert_allclose(denoising.to_floats(row.pixels[scene, f : f + m]), batch.frames[i], atol=1e-6)
        assert any((row.anchors[scene, n] == np.float16(batch.anchor[i])).all() for n in range(f))


@pytest.mark.slow
@pytest.mark.parametrize('name, trained', [('add_cond', {'cam'}), ('conc_cond', {'cam', 'unet'})])
def test_ablation_models_train_all_that_is_theirs(name, trained, encoders):
    model = build.ModelConfig.from_dict(stage_config(name).model.to_dict())
    random = np.random.default_rng(0)  # a fresh UNet predicts nothing, which would leave its memory without gradients
    unet = jax.tree.map(lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape, np.float32),
                        build.init(jax.random.key(2), build.denoiser(model))['unet'])
    stage = Stage(name, {**encoders, 'unet': unet})
    before = jax.device_get((stage.state.params, stage.frozen))
    assert set(before[0]) == trained and np.isfinite(stage.run(3)).all()
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before[0], jax.device_get(stage.state.params))
    assert all(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, before[1], jax.device_get(stage.frozen))
    networks, model = stage.objective.finish(trees.join(stage.state.params, stage.frozen), stage.model)
    if model.initial:  # first chunks are still drawn by the UNet it started from
        jax.tree.map(np.testing.assert_array_equal, networks['initial'], unet)


def test_masks_of_ablation_models_vary_and_half_of_them_are_as_in_sampling():
    made = np.asarray(denoising.masks(jax.random.key(0), 4000, 16, 8))
    sampled = (made == (np.arange(16) < 8)).all(1)
    assert made.shape == (4000, 16) and 0.46 < sampled.mean() < 0.54
    others = made[~sampled]
    assert others.mean(0).min() > 0.45 and others.mean(0).max() < 0.55  # no frame is preferred
    assert set(others.sum(1)) == set(range(17))  # from none to all of them


@pytest.fixture(scope='module')
def refiner(encoders):
    model = build.ModelConfig.from_dict(stage_config('refiner').model.to_dict())
    return Stage('refiner', {**encoders, 'refiner_vae': build.init(jax.random.key(3), build.vae(model.for_refinement))})


@pytest.mark.slow
def test_the_refiner_learns(refiner):
    losses = refiner.run(15)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert set(refiner.state.params) == {'refiner'} and set(refiner.frozen) == {'text'}


@pytest.mark.slow
def test_pairs_are_one_video_twice_on_the_canvas(refiner):
    pairs, length = refiner.objective.data.pairs, refiner.model.refiner.length
    assert pairs.clean.shape == pairs.source.shape == (*pairs.clean.shape[:3], 16, 16, 4)  # 32x32 pixels
    batch = refinement.draw(jax.random.key(5), pairs, length)
    for i in range(len(batch.ids)):
        clean, source = (np.asarray(leaf[i]) for leaf in (pairs.clean, pairs.source))
        places = [(n, slice(first, first + length)) for n in range(len(clean))
                  for first in range(clean.shape[1] - length + 1)]
        places = [place for place in places if (clean[place] == np.float16(batch.clean[i])).all()]
        assert any((source[place] == np.float16(batch.source[i])).all() for place in places)
    assert (batch.source != batch.clean).any()


@pytest.mark.slow
def test_eight_devices_train_as_one():
    # of all stages the one whose examples see each other
    one, many = Stage('clip', {}), Stage('clip', {}, devices=8)
    np.testing.assert_allclose(one.run(1), many.run(1), rtol=1e-5)
    # gradients, by way of their first moments
    first, second = (optax.tree.get(stage.state.opt, 'mu') for stage in (one, many))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), first, second)


def test_the_refiner_sees_no_level_above_its_start():
    start, t = map(np.asarray, refinement.levels(jax.random.key(0), 20_000, 200, 300))
    assert set(start) == set(range(200, 301)) and t.min() == 0 and (t <= start).all()
    assert t[start == 300].max() > 290 and t.mean() == pytest.approx(125, abs=2)


def test_windows_of_the_two_chunk_stage():
    keys = jax.random.split(jax.random.key(0), 400)
    start, anchor = jax.vmap(partial(denoising.windows, length=32, frames=16, anchored=True))(keys)
    start, anchor = np.asarray(start), np.asarray(anchor)
    assert set(start) == {16} and set(anchor) == set(range(16))


def test_windows_of_the_other_stages_lie_anywhere_in_the_sample():
    keys = jax.random.split(jax.random.key(0), 400)
    start, _ = jax.vmap(partial(denoising.windows, length=20, frames=16, anchored=False))(keys)
    assert set(np.asarray(start)) == set(range(5))
    with pytest.raises(ValueError, match='samples of 31 frames are too short: this stage needs 32'):
        denoising.windows(keys[0], 31, 16, anchored=True)


def test_dropped_conditions_are_the_empty_text_and_the_empty_image():
    n = 400
    batch = denoising.Batch(None, jnp.ones((n, 3), int), None, jnp.ones((n, 4)))
    data = denoising.Data(None, jnp.zeros(3, int), jnp.zeros(4))
    dropped = denoising.drop(jax.random.key(0), batch, data, {'text': 0.2, 'anchor': 0.2, 'both': 0.2})
    no_text, no_anchor = 1 - dropped.ids[:, 0], 1 - dropped.anchor[:, 0]
    for share in (no_text * (1 - no_anchor), no_anchor * (1 - no_text), no_text * no_anchor):
        assert 0.13 < float(share.mean()) < 0.27


def test_stages_need_those_before():
    with pytest.raises(ValueError, match='stage cam starts from trained vae, text, unet: name their weights folder'):
        Stage('cam', {})


def test_worn_frames_have_one_level_of_noise_per_video():
    videos = jnp.zeros((50, 8, 4, 4, 4))
    made = jax.vmap(partial(denoising.worn, 0.5))(jax.random.split(jax.random.key(0), 50), videos)
    levels = jnp.std(made, axis=(2, 3, 4))
    assert float(levels.max()) < 0.6 and float(jnp.std(levels.mean(1))) > 0.08
    assert float(jnp.max(jnp.abs(levels - levels.mean(1, keepdims=True)))) < 0.2


def test_bytes_keep_frames():
    frames = jnp.linspace(-1, 1, 256)
    np.testing.assert_allclose(denoising.to_floats(denoising.to_bytes(frames)), frames, atol=1e-6)


def test_pairs_of_one_group_are_not_each_others_mistakes():
    unit = jnp.eye(4)
    alone, accuracy = contrastive.contrast(unit, unit, 100.0, jnp.arange(4))
    assert float(alone) < 1e-3 and float(accuracy) == 1
    twins = unit.at[1].set(unit[0])
    mistaken, _ = contrastive.contrast(twins, twins, 100.0, jnp.arange(4))
    accepted, accuracy = contrastive.contrast(twins, twins, 100.0, jnp.array([0, 0, 2, 3]))
    assert float(accuracy) == 1
    np.testing.assert_allclose(mistaken, accepted, rtol=1e-4)  # both are log 2 on the twins: their entropy
    shifted, accuracy = contrastive.contrast(unit, jnp.roll(unit, 1, 0), 100.0, jnp.arange(4))
    assert float(shifted) > 10 and float(accuracy) == 0


def test_blur_costs_edges():
    frames = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    assert [float(part) for part in autoencoder.reconstruction(frames, frames)] == [0, 0, 0]
    *_, offset = autoencoder.reconstruction(frames + 0.5, frames)
    *_, blurred = autoencoder.reconstruction(jnp.zeros_like(frames), frames)
    assert float(offset) < 1e-5 < float(blurred)


def test_a_caption_table_has_every_wording_in_the_towers_rows():
    tokenizer = captions.world_tokenizer()
    indices = world.split_indices('train', 0, 0, 6)
    ids, group = captions.token_table(tokenizer, 0, indices, 3)
    assert ids.shape == (6, 3, 77) and group.shape == (6,) and ids.dtype == np.int32
    assert (ids != 0).all()  # row 0 stands for words the tower never saw
    assert (ids.max(axis=-1) == tokenizer.end).all()
    scene = jax.device_get(world.scene(0, int(indices[4])))
    np.testing.assert_array_equal(ids[4], tokenizer.ids([world.caption(scene, v) for v in range(3)]))
