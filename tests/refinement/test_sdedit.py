"""The refinement of whole videos, with a toy network."""

import dataclasses
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax import sharding
from st2v_jax.convert.recognise import RELEASED
from st2v_jax.diffusion.log_snr import RefinerProcess
from st2v_jax.models import build
from st2v_jax.models.unet3d import UNet3D, UNetConfig
from st2v_jax.open_model import open_model
from st2v_jax.refinement import blend
from st2v_jax.refinement.canvas import accepted_size
from st2v_jax.refinement.levels import Levels
from st2v_jax.refinement.sdedit import Job, Refiner, RefineSettings, begin, level_shapes, refine, settings_for
from st2v_jax.stopping import Stopped

pytestmark = pytest.mark.usefixtures('unoptimised')
KEYS = blend.split_keys(jax.vmap(jax.random.key)(jnp.arange(2)))
SHAPE = (2, 3, 4)
SMALL = dict(steps=3, length=6, overlap=2, rescale=0.0)


def pointwise(params, x, t, condition):
    """A v that depends on one number at a time."""
    x, t = (jnp.concatenate([a] * (len(condition[0]) // len(x))) for a in (x, t))  # one for each guidance branch
    return params * jnp.tanh(x) + condition[0] * (t[:, None, None, None, None] > 300)


def averaging(params, x, t, condition):
    """A v that depends on the whole chunk."""
    y = pointwise(params, x, t, condition)
    return y + 0.2 * jnp.concatenate([x.mean(1, keepdims=True)] * (len(y) // len(x)))


TOYS = {'pointwise': Refiner(pointwise), 'averaging': Refiner(averaging)}  # made once: each is a compiled program


def run(frames=31, toy='averaging', folder=None, mesh=None, on_step=None, told=(0.05,), texts=None, **settings):
    condition = (jnp.repeat(jnp.array([0.05, *told]), 2)[:, None, None, None, None],)
    settings = RefineSettings(**SMALL | settings)
    job = Job(TOYS[toy], settings, jnp.float32(0.4), condition, KEYS, mesh)
    shapes = level_shapes(settings, (2, frames, *SHAPE))
    levels = None if folder is None else Levels.find(*shapes, settings.steps, folder)
    if levels is None:
        latents = np.random.default_rng(0).standard_normal((2, 1200, *SHAPE), np.float32)[:, :frames]
        levels = begin(job, latents, folder=folder)
    return np.array(refine(job, levels, frames, texts=texts, on_step=on_step))


@pytest.mark.parametrize('variant', blend.VARIANTS)
@pytest.mark.parametrize('frames', [1, 5, 6, 7, 31])
def test_every_frame_of_the_video_comes_back(variant, frames):
    x = run(frames, variant=variant, span=2)
    assert x.shape == (2, frames, *SHAPE) and np.isfinite(x).all()


@pytest.mark.parametrize('variant', blend.BLENDING)
@pytest.mark.parametrize('group, span', [(1, 1), (1, 3), (2, 4), (4, 4)])
def test_the_result_does_not_depend_on_groups_and_spans(variant, group, span):
    whole = run(toy='pointwise', variant=variant, span=8)
    np.testing.assert_array_equal(run(toy='pointwise', variant=variant, group=group, span=span), whole)


@pytest.mark.parametrize('devices, span', [(2, 4), (8, 8)])
def test_the_result_does_not_depend_on_the_number_of_devices(devices, span):
    mesh = sharding.make_mesh({'data': devices}, jax.devices()[:devices])
    spread = run(toy='pointwise', group=devices, span=span, mesh=mesh)
    np.testing.assert_array_equal(spread, run(toy='pointwise'))


@pytest.fixture(scope='module')
def through_the_unet():
    """A function (settings, mesh) -> latents refined with a real UNet with the Refiner's padding and random weights."""
    config = UNetConfig(
        (8, 8, 8), (False, True, False), blocks=1, head_size=4, input_heads=1, context_width=4, groups=2, padding=(2, 1)
    )
    network = build.network(UNet3D, config)
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape, np.float32), build.init(jax.random.key(0), network)
    )
    texts = random.standard_normal((2, 5, 4), np.float32)
    condition = network(params, texts, method='keys_values')
    latents = random.standard_normal((1, 15, *accepted_size((10, 8), config), 4), np.float32)
    refiner, keys = Refiner(network), jax.tree.map(lambda key: key[:1], KEYS)

    def through(mesh=None, **settings):
        settings = RefineSettings(steps=2, length=6, overlap=2, **settings)
        job = Job(refiner, settings, params, condition, keys, mesh)
        return refine(job, begin(job, latents), 15)

    return through


@pytest.mark.slow
def test_through_the_real_unet_groups_and_devices_change_only_rounding(through_the_unet):
    one = through_the_unet()
    mesh = sharding.make_mesh({'data': 2}, jax.devices()[:2])
    for other in (through_the_unet(span=2), through_the_unet(group=4), through_the_unet(mesh, group=2)):
        error = np.linalg.norm(other - one) / np.linalg.norm(one)
        assert error < 1e-5


TEXTS = dict(told=(0.3, -0.4), texts=np.array([0, 1, 1, 0, 0, 1, 0, 1], np.int32))  # of the 8 chunks of 31 frames


@pytest.mark.parametrize('variant, span, group', [('B', 8, 1), ('B+S', 8, 3), ('paper', 8, 1), ('paper', 3, 1)])
def test_each_chunk_has_its_own_text(variant, span, group):
    settings = dict(toy='pointwise', variant=variant, span=span * group, group=group)
    both, *each = run(**settings, **TEXTS), *(run(**settings, told=(told,)) for told in TEXTS['told'])
    assert np.abs(each[0] - each[1]).min(axis=(0, 2, 3, 4)).max() > 1e-3
    for number, text in enumerate(TEXTS['texts']):
        own = slice(4 * number + 2, 4 * number + 4)  # frames of no other chunk; the last has more
        np.testing.assert_array_equal(both[:, own], each[text][:, own])


@pytest.mark.parametrize('devices, span, group', [(1, 2, 2), (1, 3, 1), (2, 4, 2)])
def test_texts_of_chunks_do_not_depend_on_groups_spans_and_devices(devices, span, group):
    mesh = sharding.make_mesh({'data': devices}, jax.devices()[:devices]) if devices > 1 else None
    whole = run(toy='pointwise', **TEXTS)
    np.testing.assert_array_equal(run(toy='pointwise', span=span, group=group, mesh=mesh, **TEXTS), whole)


@pytest.fixture
def stopping_at(monkeypatch):
    """stopping_at(n): the n-th look whether a signal has come, from 0, finds one. Returns the list of looks."""

    def stopping_at(number):
        looks = []

        def check():
            looks.append(number)
            if len(looks) == number + 1:
                raise Stopped(signal.SIGTERM)

        monkeypatch.setattr('st2v_jax.refinement.sdedit.stopping', SimpleNamespace(check=check))
        return looks

    return stopping_at


@pytest.mark.parametrize('variant, span', [('paper', 2), ('release', 3), ('paper', 8), ('B', 2), ('B+S', 8)])
def test_stopped_and_continued_is_as_if_it_had_not_stopped(variant, span, stopping_at, tmp_path):
    arguments = dict(variant=variant, span=span, **TEXTS)
    looks = stopping_at(-2)
    whole = run(**arguments)
    for number in range(len(looks)):
        folder, done = tmp_path / str(number), []
        folder.mkdir()
        stopping_at(number)
        with pytest.raises(Stopped):
            run(**arguments, folder=folder)
        rest = stopping_at(-2)
        on_step = lambda levels, steps, done=done: done.append(levels.done)
        np.testing.assert_array_equal(run(**arguments, folder=folder, on_step=on_step), whole)
        assert len(rest) <= len(looks) - number + 1, 'no span is done again'
        assert done == [1, 2, 3][3 - len(done) :]
        assert len([file for file in folder.iterdir() if file.name.startswith('x')]) == 1, 'the result'


def test_latents_in_files_are_the_same_latents(tmp_path):
    seen = set()
    on_step = lambda *_: seen.update(path.name for path in tmp_path.iterdir())
    np.testing.assert_array_equal(run(240, span=8, folder=tmp_path, on_step=on_step), run(240, span=8))
    assert seen == {'x-0', 'x0-0', 'x-1', 'x0-1', 'journal.safetensors'}
    np.testing.assert_array_equal(run(240, span=8, folder=tmp_path, on_step=pytest.fail), run(240, span=8))


def test_a_longer_video_begins_like_a_shorter_one():
    # neither the noise of a frame nor the cuts of a chunk depend on the length; the toy network takes single numbers
    np.testing.assert_array_equal(run(240, toy='pointwise', span=8)[:, :22], run(22, toy='pointwise', span=4))


@pytest.mark.parametrize(
    'bad, message', [({'variant': 'S'}, 'variant is one of'), ({'group': 3}, 'span is a multiple of group, not 8 of 3')]
)
def test_settings_that_cannot_be_refined_with_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        RefineSettings(**bad)


@pytest.mark.parametrize('variant', blend.VARIANTS)
def test_a_scaled_start_is_multiplied_by_its_sigma(variant):
    latents = np.random.default_rng(0).standard_normal((2, 9, *SHAPE), np.float32)
    plain, scaled = (
        begin(
            Job(TOYS['pointwise'], RefineSettings(**SMALL, variant=variant, scaled_start=on), None, None, KEYS), latents
        )
        for on in (False, True)
    )
    sigma = TOYS['pointwise'].table.sigma[RefineSettings().start]
    np.testing.assert_allclose(scaled.x, sigma * plain.x, rtol=1e-5)
    assert 0.9 < sigma < 1


def test_the_shipped_refiner_differs_from_the_released_one():
    """As docs/paper-and-release.md says."""
    released, shipped = settings_for(RELEASED), settings_for(open_model().config)
    assert released == RefineSettings(
        variant='release',
        steps=30,
        start=599,
        length=24,
        overlap=8,
        guidance=7.5,
        rescale=0.2,
        scaled_start=True,
    )
    assert shipped == dataclasses.replace(
        released, variant='paper', steps=12, start=299, guidance=2.0, scaled_start=False
    )
    assert open_model().config.refiner.process == RefinerProcess(scale_clean=1.0, scale_noisy=1.0)
