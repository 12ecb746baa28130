"""A planned step has the arguments of a real one, and the remedies follow from what the mesh splits."""

import jax
import pytest
from configs_of import stage_config

from st2v_jax.training.planned import bytes_per_device, held, planned_step, remedies


def step(**overrides):
    """The step of the stage cam on eight devices."""
    return planned_step(stage_config('cam', **overrides), jax.devices())


def test_the_pool_is_as_large_as_the_config_says_and_split_over_the_devices():
    one = stage_config('cam')
    pool = step().data.videos
    assert pool.pixels.shape == (one.batch_size, one.data.scenes // one.batch_size, one.data.frames, 16, 16, 3)
    assert bytes_per_device(pool.pixels) == pool.pixels.size / 8


def test_clips_come_as_pixels_and_bring_the_autoencoder():
    config = stage_config('apm', **{'data.source': 'clips/'})
    planned = planned_step(config, jax.devices())
    assert planned.data.videos.pixels.shape == (8, 16, 16, 16, 3)
    assert planned.data.videos.anchor.shape == (8, 16, 16, 3)
    assert {'vae', 'image', 'text', 'unet'} <= set(planned.frozen)


def test_fsdp_splits_what_a_device_holds():
    whole, split = held(step()), held(step(**{'mesh.fsdp': '8'}))
    assert whole['parameters and average'] == pytest.approx(whole['optimizer'], rel=1e-3)
    for name in ('parameters and average', 'optimizer', 'frozen'):
        assert split[name] < whole[name]
    assert split['examples'] == whole['examples']


@pytest.mark.parametrize(
    ('stage', 'overrides', 'rule'),
    [
        ('clip', {}, 'objective denoising'),
        ('cam', {'batch_size': '12', 'data.scenes': '24'}, 'cannot be split over 8 devices'),
        ('cam', {'mesh.fsdp': '3'}, 'does not divide 8 devices'),
        ('cam', {'accumulation': '2'}, 'cannot be split over 8 devices'),
    ],
)
def test_what_cannot_be_trained_is_not_planned(stage, overrides, rule):
    with pytest.raises(ValueError, match=rule):
        planned_step(stage_config(stage, **overrides), jax.devices())


@pytest.mark.slow
def test_remedies_are_the_fewest_options_that_make_it_fit_by_arithmetic():
    config = stage_config('cam', batch_size='64', **{'data.scenes': '64', 'remat': 'nothing_saveable'})
    state = {1: sum(held(planned_step(config, jax.devices())).values())}
    for fsdp in (2, 8):
        split = config.copy_and_resolve_references()
        split.mesh.fsdp = fsdp
        state[fsdp] = sum(held(planned_step(split, jax.devices())).values())
    assert state[1] > state[2] > state[8]
    offered = lambda activations, memory: remedies(config, jax.devices(), state[1] + activations, memory)
    assert offered(1000, state[2] + 1000) == ['--config.mesh.fsdp=2']
    assert offered(1000, state[2] + 999) == ['--config.mesh.fsdp=4']
    assert offered(10**9, state[1] + 10**9 // 2) == ['--config.accumulation=2']
    assert offered(10**9, state[8] + 10**9 // 8) == ['--config.mesh.fsdp=8', '--config.accumulation=8']
    assert offered(10**9, state[8]) == []
    config.remat = 'none'
    assert offered(10**9, state[8]) == ['--config.remat=nothing_saveable']
