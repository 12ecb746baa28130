"""The fold over chunks, with stand-in networks whose answers are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from streaming.counting import (
    CONFIG,
    COUNTING,
    PARAMS,
    SETTINGS,
    STEP,
    Counter,
    autoencoder,
    image,
    prompt_of,
    stand_in,
)

from st2v_jax.diffusion.noise import frame_noise
from st2v_jax.diffusion.schedule import DiffusionConfig, noise_levels
from st2v_jax.errors import OutOfRange
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.clip import preprocess
from st2v_jax.models.contract import Contract
from st2v_jax.models.system import Prompt, System, encode_prompt, system
from st2v_jax.streaming import stream as streaming
from st2v_jax.streaming.generate import first_frames
from st2v_jax.streaming.settings import SampleSettings, settings_for
from st2v_jax.streaming.stream import StreamState, start, video_keys

pytestmark = pytest.mark.usefixtures('unoptimised')


def frames_of(system, n, *, values=(-0.9,), settings=SETTINGS, seed=0, **kwargs):
    state = start(video_keys([seed + i for i in range(len(values))]))
    return cut(streaming.stream(system, settings, PARAMS, prompt_of(*values), state, **kwargs), n)


def cut(chunks, n):
    return np.concatenate(list(first_frames((frames for frames, _ in chunks), n)), 1)


def test_a_long_video_continues_where_each_chunk_ended():
    frames = frames_of(stand_in(), 240, values=(-0.9, -0.5))
    assert frames.shape == (2, 240, 16, 16, 3)
    count = np.array([-0.9, -0.5])[:, None] + STEP * np.arange(240)
    np.testing.assert_allclose(frames, np.broadcast_to(count[..., None, None, None], frames.shape), atol=2e-4)


@pytest.mark.parametrize(
    ('dtype', 'remedy'), [('float16', '; --dtype float32'), ('bfloat16', '; --dtype float32'), ('float32', '')]
)
def test_numbers_out_of_range_end_a_video_with_the_remedy(dtype, remedy):
    params = PARAMS | {'unet': {'conv_in': {'kernel': np.zeros((1, 1), jnp.dtype(dtype))}}}
    black = System(CONFIG, lambda *given, **method: np.nan * autoencoder(*given, **method), None, image, Counter())
    for what, networks, begins in (('the latents', COUNTING, np.inf), ('the frames', black, -0.9)):
        chunks = streaming.stream(networks, SETTINGS, params, prompt_of(begins), start(video_keys([0])))
        with pytest.raises(OutOfRange, match=f'^{what} of chunk 1 are not finite in {dtype}{remedy}$'):
            next(chunks)


@pytest.mark.parametrize('n', [1, 7, 16, 17, 24, 25, 240])
def test_exactly_the_frames_asked_for(n):
    assert frames_of(COUNTING, n).shape[1] == n
    chunks = CONFIG.contract.chunks(n)
    assert CONFIG.contract.frames_after(chunks) >= n and (chunks == 1 or CONFIG.contract.frames_after(chunks - 1) < n)


def test_one_program_for_the_first_chunk_and_one_for_all_later_ones():
    system = stand_in()  # the network is called when a step is traced
    frames_of(system, 56)
    frames_of(system, 24, on_step=lambda *_: None)
    assert len(system.denoiser.batches) == 2


def random_system():
    """A denoiser that keeps some of its noise, so that frames depend on every random number."""

    class Noisy(Counter):
        def __call__(self, params, x, t=None, condition=None, *, method='__call__', **kwargs):
            if method != '__call__':
                return super().__call__(params, x, t, condition, method=method, **kwargs)
            x, _ = self.branches(x, t, condition[0])
            return 0.1 * x + condition[0][:, None, None, None, None]

    return System(CONFIG, autoencoder, None, image, Noisy())


ANCESTRAL = SampleSettings(profile='release', steps=3, first_steps=3, eta=1.0)


def test_a_stored_state_continues_as_if_it_had_not_stopped(tmp_path):
    system = random_system()
    whole = frames_of(system, 48, settings=ANCESTRAL)
    chunks = streaming.stream(system, ANCESTRAL, PARAMS, prompt_of(-0.9), start(video_keys([0])))
    for _ in range(3):
        _, state = next(chunks)
    np.savez(tmp_path / 'state.npz', **state.to_arrays())
    with np.load(tmp_path / 'state.npz') as stored:
        restored = StreamState.from_arrays(dict(stored))
    assert int(restored.index) == 3
    rest = streaming.stream(system, ANCESTRAL, PARAMS, prompt_of(-0.9), restored)
    np.testing.assert_array_equal(whole[:, 32:40], next(rest)[0])
    np.testing.assert_array_equal(whole[:, 40:48], next(rest)[0])


@pytest.mark.parametrize('impl', ['threefry2x32', 'rbg'])
@pytest.mark.parametrize('anchor', [None, np.float32([[0.1, np.pi]])])
@pytest.mark.parametrize('frames', [None, np.float32(np.linspace(-1, 1, 24)).reshape(1, 1, 2, 4, 3)])
def test_a_state_goes_to_plain_arrays_and_back_bit_for_bit(impl, anchor, frames):
    state = StreamState(frames, anchor, jax.random.key(7, impl=impl)[None], jnp.int32(5))
    arrays = state.to_arrays()
    assert all(type(array) is np.ndarray for array in arrays.values())
    again = StreamState.from_arrays(arrays)
    assert (again.frames is None, again.anchor is None) == (frames is None, anchor is None)
    assert again.key.dtype == state.key.dtype and again.index.dtype == state.index.dtype
    for name, array in again.to_arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
    draw = lambda state: jax.random.normal(state.key[0], 3)
    np.testing.assert_array_equal(draw(again), draw(state))


def test_arrays_that_are_not_a_state_are_refused():
    with pytest.raises(ValueError, match='not the arrays of a state: index, key_kind missing'):
        StreamState.from_arrays({'key': np.zeros((1, 2), np.uint32)})


def test_a_video_does_not_depend_on_the_batch_it_is_made_in():
    system = random_system()
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    run = lambda values, keys: cut(streaming.stream(system, ANCESTRAL, PARAMS, prompt_of(*values), start(keys)), 24)
    both = run((-0.9, 0.2), keys)
    np.testing.assert_allclose(both[1:], run((0.2,), keys[1:]), atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_videos_spread_over_devices_are_the_same_videos():
    system, keys = random_system(), jax.random.split(jax.random.key(0), 8)
    values = jnp.linspace(-0.9, 0.5, 8)
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    place = lambda leaf: jax.device_put(leaf, jax.NamedSharding(mesh, jax.P('data') if leaf.ndim else jax.P()))
    spread = jax.tree.map(place, (prompt_of(*values), start(keys)))

    def second(prompt, state):
        _, state = streaming.next_chunk(system, ANCESTRAL, PARAMS, prompt, state)
        return streaming.next_chunk(system, ANCESTRAL, PARAMS, prompt, state)[0]

    frames = second(*spread)
    assert len(frames.sharding.device_set) == 8
    np.testing.assert_allclose(frames, second(prompt_of(*values), start(keys)), atol=1e-5)


def test_no_random_key_is_used_twice():
    with jax.debug_key_reuse(True):
        frames_of(random_system(), 32, settings=ANCESTRAL)


def test_the_real_networks_fit(tiny_config, tiny_params):
    networks = system(tiny_config)
    ids = np.ones((2, 2, 77), np.int32)
    prompt = encode_prompt(networks, tiny_params, *ids)
    settings = settings_for(tiny_config, steps=2)
    video = cut(streaming.stream(networks, settings, tiny_params, prompt, start(video_keys([0, 1]))), 25)
    assert video.shape == (2, 25, 32, 32, 3) and video.dtype == np.float32
    assert np.isfinite(video).all() and np.abs(video).max() <= 1 and video.std() > 0


def test_a_system_is_made_once_however_its_dtype_is_given(tiny_config):
    assert system(tiny_config) is system(tiny_config, jnp.float32)
    assert system(tiny_config) is not system(tiny_config, jnp.bfloat16)


def test_noise_depends_on_key_index_and_absolute_frame_alone():
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    noise = lambda noise_index, frames: frame_noise(keys, noise_index, jnp.asarray(frames), (3, 2))
    whole = noise(4, np.arange(24))
    np.testing.assert_array_equal(noise(4, np.arange(16, 24)), whole[:, 16:])
    np.testing.assert_array_equal(frame_noise(keys[1:], 4, jnp.array([5]), (3, 2))[0, 0], whole[1, 5])
    others = np.stack([whole[0, 0], whole[0, 1], whole[1, 0], noise(5, [0])[0, 0]])
    assert len(np.unique(others)) == others.size


def test_later_chunks_get_new_noise_for_the_frames_they_generate_again():
    system, begun = random_system(), start(video_keys([0]))
    _, state = next(streaming.stream(system, SETTINGS, PARAMS, prompt_of(-0.9), begun))
    begin = streaming.programs(system, SETTINGS).begin
    first, second = (begin(PARAMS, prompt_of(-0.9), state)[0] for state in (begun, state))
    assert np.abs(first[:, 8:] - second[:, :8]).min() > 0


@pytest.mark.parametrize('profile, branches', [('paper', 3), ('release', 2)])
def test_guidance_branches_are_one_batch(profile, branches):
    system = stand_in()
    frames_of(system, 24, settings=SampleSettings(profile=profile, steps=2, first_steps=2))
    assert set(system.denoiser.batches) == {2, branches}


def test_the_anchor_is_the_chosen_frame_of_the_first_chunk_and_guided_by_its_own_scale():
    settings = SampleSettings(steps=2, first_steps=2, anchor_frame=4, guidance_anchor=3.0)
    chunks = streaming.stream(stand_in(tint=0.01), settings, PARAMS, prompt_of(-0.9), start(video_keys([0])))
    first, state = next(chunks)
    anchor = state.anchor
    np.testing.assert_allclose(anchor, image(None, preprocess(first[:, 4], 224)), rtol=1e-4)
    second, state = next(chunks)
    np.testing.assert_array_equal(state.anchor, anchor)
    count = -0.9 + STEP * np.arange(16, 24) + 3.0 * 0.01 * float(anchor[0, 0])
    np.testing.assert_allclose(second.mean((0, 2, 3, 4)), count, atol=2e-4)


def test_the_next_step_is_started_before_one_is_reported(monkeypatch):
    order, programs = [], streaming.programs

    def spied(system, settings):
        run = programs(system, settings)
        return run._replace(step=lambda *given: order.append('started') or run.step(*given))

    monkeypatch.setattr(streaming, 'programs', spied)
    frames_of(stand_in(), 16, settings=SampleSettings(steps=3, first_steps=3), on_step=lambda *told: order.append(told))
    assert order == ['started', 'started', (0, 1, 3), 'started', (0, 2, 3), (0, 3, 3)]


@pytest.mark.parametrize(
    'settings',
    [
        SETTINGS,
        ANCESTRAL,
        SampleSettings(steps=3, first_steps=4, solver='dpmpp_2m', first_solver='dpmpp_2m', guidance_rescale=0.2),
    ],
)
def test_watched_steps_give_the_same_video(settings):
    system, seen = random_system(), []
    watched = frames_of(system, 32, settings=settings, on_step=lambda *progress: seen.append(progress))
    np.testing.assert_array_equal(watched, frames_of(system, 32, settings=settings))
    counts = [settings.first_steps, settings.steps, settings.steps]
    assert seen == [(chunk, i + 1, n) for chunk, n in enumerate(counts) for i in range(n)]


def test_a_chunk_as_a_single_program_is_the_same_chunk():
    system, state = random_system(), start(video_keys([0]))
    chunks = streaming.stream(system, ANCESTRAL, PARAMS, prompt_of(-0.9), state)
    for _ in range(2):
        frames, after = next(chunks)
        alone, state = streaming.next_chunk(system, ANCESTRAL, PARAMS, prompt_of(-0.9), state)
        np.testing.assert_allclose(alone, frames, atol=1e-5)
    assert int(state.index) == int(after.index) == 2


class GroupedConfig:
    """What streaming reads of the config of a backbone that we do not have, and nothing more.

    Groups of 3 frames are coded as 2 latents. The first chunk has two groups; later ones have three, one of them old.
    """

    contract = Contract(
        first_frames=6,
        later_frames=9,
        memory=3,
        group_frames=3,
        group_latents=2,
        frame_size=(4, 6),
        latent_size=(2, 3, 4),
        text_tokens=5,
        process=DiffusionConfig(),
    )
    scale_factor = 0.5
    cam = ModelConfig().cam
    backbone = ModelConfig().backbone


def test_a_backbone_that_codes_frames_in_groups_streams_by_its_contract():
    """Latents are their own absolute number; a group is decoded to the mean of its two."""
    contract, seen = GroupedConfig.contract, []

    def decode(params, groups, method):
        assert groups.shape[1:] == (2, 2, 3, 4)
        return groups.mean((1, 2, 3, 4))[:, None, None, None, None] * jnp.ones((len(groups), 3, 4, 6, 3))

    def denoiser(params, x, t=None, condition=None, *, method='__call__', texts=1):
        if method == 'condition':
            seen.append(None if t is None else t.shape)
            return None
        first, count = (0, 4) if x.shape[1] == 4 else (2, 6)  # the first later chunk begins with the old group
        x0 = 0.01 * (first + jnp.arange(count))[:, None, None, None] * jnp.ones_like(x)
        alpha, sigma = (
            jnp.asarray(leaf, x.dtype)[t][:, None, None, None, None] for leaf in noise_levels(contract.process)[:2]
        )
        return jnp.tile((x - alpha * x0) / sigma, (2, 1, 1, 1, 1))  # two guidance branches

    networks = System(GroupedConfig(), decode, None, None, denoiser)
    params = {name: {} for name in ('vae', 'unet', 'cam')}
    settings = SampleSettings(steps=3, first_steps=3, solver='dpmpp_2m', first_solver='dpmpp_2m')
    prompt = Prompt(jnp.zeros((1, 5, 2)), jnp.zeros((1, 5, 2)), None)
    chunks = streaming.stream(networks, settings, params, prompt, start(video_keys([0])))
    (first, state), (second, after) = next(chunks), next(chunks)
    assert first.shape == second.shape == (1, 6, 4, 6, 3)
    assert state.frames.shape == after.frames.shape == (1, 3, 4, 6, 3)
    assert seen == [None, (1, 3, 4, 6, 3)]
    means = np.concatenate([first, second], 1)[0, ::3, 0, 0, 0]
    np.testing.assert_allclose(means, 2 * 0.01 * np.array([0.5, 2.5, 4.5, 6.5]), atol=1e-4)


def test_a_contract_counts_chunks_frames_and_latents():
    contract = GroupedConfig.contract
    assert [contract.chunks(n) for n in (1, 6, 7, 12, 13)] == [1, 1, 2, 2, 3]
    assert [contract.frames_after(n) for n in (1, 2, 3)] == [6, 12, 18]
    assert [contract.begins_at(i, first=i == 0) for i in range(3)] == [0, 2, 6]
    assert contract.latent_shape(first=True) == (4, 2, 3, 4) and contract.latent_shape(first=False) == (6, 2, 3, 4)


@pytest.mark.parametrize(
    'wrong, message',
    [
        ({'memory': 2}, 'memory=2 is not a multiple of the 3 frames'),
        ({'memory': 9}, 'do not have 9 in common'),
        ({'first_frames': 3, 'memory': 6}, 'do not have 6 in common'),
    ],
)
def test_chunks_that_cannot_follow_each_other_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GroupedConfig.contract, **wrong)


def test_the_profile_brings_its_rules_and_the_model_its_scales():
    config = ModelConfig(profile='release', guidance_text=5.0)
    settings = settings_for(config, steps=12)
    assert (settings.profile, settings.eta, settings.first_solver, settings.first_guidance) == (
        'release',
        1.0,
        'dpmpp_2m',
        9.0,
    )
    assert (settings.guidance_text, settings.steps, settings.first_steps) == (5.0, 12, 12)
    assert settings_for(config, profile='paper', eta=0.5).eta == 0.5
    with pytest.raises(ValueError, match=r"unknown settings \['stepz'\]"):
        settings_for(config, stepz=3)
    with pytest.raises(ValueError, match='anchor_frame=16 is not one of the 16'):
        settings_for(config, anchor_frame=16)


@pytest.mark.parametrize(
    'bad, message',
    [
        ({'profile': 'both'}, 'profile is one of'),
        ({'solver': 'euler'}, 'solver is one of'),
        ({'eta': 1.0, 'solver': 'dpmpp_2m'}, 'eta is at least 0'),
        ({'steps': 0}, 'at least 1'),
    ],
)
def test_settings_that_cannot_be_sampled_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        SampleSettings(**bad)


def test_every_video_has_a_key():
    with pytest.raises(ValueError, match=r'keys are \[b\], not of shape \(\)'):
        start(jax.random.key(0))


def test_a_video_has_the_key_that_it_would_have_alone():
    keys = jax.random.key_data(video_keys([3, 7]))
    np.testing.assert_array_equal(keys[1:], jax.random.key_data(video_keys([7])))
    assert (keys[0] != keys[1]).any()
