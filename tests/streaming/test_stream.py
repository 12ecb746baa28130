"""The fold over chunks, with stand-in networks whose answer is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.diffusion.schedule import DiffusionConfig, noise_levels
from st2v_jax.models.build import ModelConfig
from st2v_jax.streaming import stream as streaming
from st2v_jax.streaming.stream import Context, SampleSettings, StreamState, System, settings_for, start

pytestmark = pytest.mark.usefixtures('unoptimised')
CONFIG = ModelConfig(image_size=16, diffusion=DiffusionConfig(prediction='v', zero_terminal_snr=True))
STEP = 0.005
SETTINGS = SampleSettings(steps=2, first_steps=2)
PARAMS = {name: {} for name in ('vae', 'text', 'image', 'unet', 'cam', 'apm')}


def decode(params, latents, method):
    assert method == 'decode'
    return jnp.repeat(jnp.repeat(latents[..., :3], 8, 1), 8, 2)


class Counter:
    """Predicts the v of a video that counts: each frame is STEP brighter than the one before it.

    It starts at the text's value and goes on from the last conditioning frame. `tint` adds the anchor's value.
    """

    def __init__(self, tint=0.0):
        self.tint = tint
        self.batches = []

    def __call__(self, params, x, t=None, condition=None, *, method='__call__', **kwargs):
        if method == 'condition':
            return self.condition(x, t, condition)
        self.batches.append(len(x))
        last, tint = condition
        frame = last[:, None] + STEP * jnp.arange(1, x.shape[1] + 1)
        x0 = CONFIG.scale_factor * (frame + tint[:, None])[..., None, None, None] * jnp.ones_like(x)
        alpha, sigma = (jnp.asarray(leaf, x.dtype)[t][:, None, None, None, None]
                        for leaf in noise_levels(CONFIG.diffusion)[:2])
        return (alpha * x - x0) / sigma

    def condition(self, text, frames, anchor):
        if frames is None:
            return text[:, 0, 0] - STEP, jnp.zeros(len(text))
        # memory frames are drawn anew first: the chunk starts where the oldest of them stands
        last = frames[:, 0].mean((1, 2, 3)) - STEP
        shared = len(text) - len(frames)
        return jnp.concatenate([last, last[len(last) - shared:]]), self.tint * anchor[:, 0]


def image(params, images):
    return images.mean((1, 2))


def stand_in(tint=0.0):
    return System(CONFIG, decode, None, image, Counter(tint))


COUNTING = stand_in()


def context(*values):
    text = jnp.array(values, jnp.float32)[:, None, None] * jnp.ones((1, 77, 4))
    return Context(text, text, jnp.zeros((len(values), 3)))


def frames_of(system, n, *, values=(-0.9,), settings=SETTINGS, seed=0, **kwargs):
    chunks = list(streaming.generate(system, settings, PARAMS, context(*values), jax.random.key(seed), n, **kwargs))
    return np.concatenate(chunks, 1)


def test_a_long_video_continues_where_each_chunk_ended():
    frames = frames_of(stand_in(), 240, values=(-0.9, -0.5))
    assert frames.shape == (2, 240, 16, 16, 3)
    count = np.array([-0.9, -0.5])[:, None] + STEP * np.arange(240)
    np.testing.assert_allclose(frames, np.broadcast_to(count[..., None, None, None], frames.shape), atol=2e-4)


@pytest.mark.parametrize('n', [1, 7, 16, 17, 24, 25, 240])
def test_exactly_the_frames_asked_for(n):
    assert frames_of(COUNTING, n).shape[1] == n
    chunks = streaming.chunk_count(CONFIG, n)
    assert 16 + 8 * (chunks - 1) >= n and (chunks == 1 or 16 + 8 * (chunks - 2) < n)


@pytest.mark.parametrize('n', [0, -3])
def test_fewer_than_one_frame_is_refused_at_once(n):
    with pytest.raises(ValueError, match=f'at least 1 frame, not {n}'):
        streaming.generate(stand_in(), SETTINGS, PARAMS, context(0.0), jax.random.key(0), n)


def test_one_program_for_the_first_chunk_and_one_for_all_later_ones(monkeypatch):
    monkeypatch.setattr(streaming, '_next_chunk',
                        jax.jit(chex.assert_max_traces(streaming._chunk, n=2), static_argnums=(0, 1)))
    assert frames_of(stand_in(), 56).shape[1] == 56


def random_system():
    """A denoiser that keeps what its noise was: frames depend on every random draw."""
    class Noisy(Counter):
        def __call__(self, params, x, t=None, condition=None, *, method='__call__', **kwargs):
            if method == 'condition':
                return self.condition(x, t, condition)
            return 0.1 * x + condition[0][:, None, None, None, None]

    return System(CONFIG, decode, None, image, Noisy())


ANCESTRAL = SampleSettings(profile='release', steps=3, first_steps=3, eta=1.0)


def test_a_stored_state_continues_as_if_it_had_not_stopped():
    system = random_system()
    whole = frames_of(system, 48, settings=ANCESTRAL)
    chunks = streaming.stream(system, ANCESTRAL, PARAMS, context(-0.9), start(jax.random.key(0)))
    for _ in range(3):
        _, state = next(chunks)
    stored = [np.asarray(leaf) for leaf in (state.frames, state.anchor, jax.random.key_data(state.key), state.index)]
    restored = StreamState(stored[0], stored[1], jax.random.wrap_key_data(stored[2]), stored[3])
    assert int(restored.index) == 3
    rest = streaming.stream(system, ANCESTRAL, PARAMS, context(-0.9), restored)
    np.testing.assert_array_equal(whole[:, 32:40], next(rest)[0])
    np.testing.assert_array_equal(whole[:, 40:48], next(rest)[0])


def test_a_video_does_not_depend_on_the_batch_it_is_made_in():
    system = random_system()
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    run = lambda values, keys: np.concatenate(
        list(streaming.generate(system, ANCESTRAL, PARAMS, context(*values), keys, 24)), 1)
    both = run((-0.9, 0.2), keys)
    np.testing.assert_allclose(both[1:], run((0.2,), keys[1:]), atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_videos_spread_over_devices_are_the_same_videos():
    system, keys = random_system(), jax.random.split(jax.random.key(0), 8)
    values = jnp.linspace(-0.9, 0.5, 8)
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    place = lambda leaf: jax.device_put(leaf, jax.NamedSharding(mesh, jax.P('data') if leaf.ndim else jax.P()))
    spread = jax.tree.map(place, (context(*values), start(keys, 8)))

    def second(context, state):
        _, state = streaming.next_chunk(system, ANCESTRAL, PARAMS, context, state)
        return streaming.next_chunk(system, ANCESTRAL, PARAMS, context, state)[0]

    frames = second(*spread)
    assert len(frames.sharding.device_set) == 8
    np.testing.assert_allclose(frames, second(context(*values), start(keys, 8)), atol=1e-5)


def test_no_random_key_is_used_twice():
    with jax.debug_key_reuse(True):
        frames_of(random_system(), 32, settings=ANCESTRAL)


def test_the_real_networks_fit(tiny_config, tiny_params):
    system = streaming.system(tiny_config)
    ids = np.ones((2, 2, 77), np.int32)
    prompt = streaming.encode_prompt(system, tiny_params, *ids)
    settings = settings_for(tiny_config, steps=2)
    video = np.concatenate(list(streaming.generate(system, settings, tiny_params, prompt, jax.random.key(0), 25)), 1)
    assert video.shape == (2, 25, 32, 32, 3) and video.dtype == np.float32
    assert np.isfinite(video).all() and np.abs(video).max() <= 1 and video.std() > 0


def test_a_system_is_made_once_however_its_dtype_is_given(tiny_config):
    assert streaming.system(tiny_config) is streaming.system(tiny_config, jnp.float32)
    assert streaming.system(tiny_config) is not streaming.system(tiny_config, jnp.bfloat16)


def test_noise_depends_on_key_draw_and_absolute_frame_alone():
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    noise = lambda draw, frames: streaming.frame_noise(keys, draw, jnp.asarray(frames), (3, 2))
    whole = noise(4, np.arange(24))
    np.testing.assert_array_equal(noise(4, np.arange(16, 24)), whole[:, 16:])
    np.testing.assert_array_equal(streaming.frame_noise(keys[1:], 4, jnp.array([5]), (3, 2))[0, 0], whole[1, 5])
    others = np.stack([whole[0, 0], whole[0, 1], whole[1, 0], noise(5, [0])[0, 0]])
    assert len(np.unique(others)) == others.size


def test_later_chunks_get_new_noise_for_the_frames_they_draw_again():
    _, state = next(streaming.stream(random_system(), SETTINGS, PARAMS, context(-0.9), start(jax.random.key(0))))
    system = random_system()
    first = streaming._noise(system, start(jax.random.key(0)), 0)
    assert np.abs(first[:, 8:] - streaming._noise(system, state, 0)[:, :8]).min() > 0


@pytest.mark.parametrize('profile, branches', [('paper', 3), ('release', 2)])
def test_guidance_branches_are_one_batch(profile, branches):
    system = stand_in()
    frames_of(system, 24, settings=SampleSettings(profile=profile, steps=2, first_steps=2))
    assert set(system.denoiser.batches) == {2, branches}


def test_the_anchor_is_the_chosen_frame_of_the_first_chunk_and_guided_by_its_own_scale():
    settings = SampleSettings(steps=2, first_steps=2, anchor_frame=4, guidance_anchor=3.0)
    chunks = streaming.stream(stand_in(tint=0.01), settings, PARAMS, context(-0.9), start(jax.random.key(0)))
    first, state = next(chunks)
    anchor = state.anchor
    np.testing.assert_allclose(anchor, image(None, streaming.preprocess(first[:, 4], 224)), rtol=1e-4)
    second, state = next(chunks)
    np.testing.assert_array_equal(state.anchor, anchor)
    count = -0.9 + STEP * np.arange(16, 24) + 3.0 * 0.01 * float(anchor[0, 0])
    np.testing.assert_allclose(second.mean((0, 2, 3, 4)), count, atol=2e-4)


def test_the_next_step_is_started_before_one_is_told(monkeypatch):
    order, parts = [], streaming.parts

    def spied(system, settings):
        begin, step, end = parts(system, settings)
        return begin, lambda *given: order.append('started') or step(*given), end

    monkeypatch.setattr(streaming, 'parts', spied)
    frames_of(stand_in(), 16, settings=SampleSettings(steps=3, first_steps=3), on_step=lambda *told: order.append(told))
    assert order == ['started', 'started', (0, 1, 3), 'started', (0, 2, 3), (0, 3, 3)]


@pytest.mark.parametrize('settings', [SETTINGS, ANCESTRAL, SampleSettings(
    steps=3, first_steps=4, solver='dpmpp_2m', first_solver='dpmpp_2m', guidance_rescale=0.2)])
def test_watched_steps_give_the_same_video(settings):
    system, seen = random_system(), []
    watched = frames_of(system, 32, settings=settings, on_step=lambda *progress: seen.append(progress))
    np.testing.assert_allclose(watched, frames_of(system, 32, settings=settings), atol=1e-5)
    counts = [settings.first_steps, settings.steps, settings.steps]
    assert seen == [(chunk, i + 1, n) for chunk, n in enumerate(counts) for i in range(n)]


def test_watched_chunks_compile_once(monkeypatch):
    monkeypatch.setattr(streaming, '_jit_step', jax.jit(chex.assert_max_traces(streaming._jit_step.__wrapped__, n=2),
                                                        static_argnums=(0, 1)))
    frames_of(stand_in(), 56, on_step=lambda *_: None)


def test_the_profile_brings_its_rules_and_the_model_its_scales():
    config = ModelConfig(profile='release', guidance_text=5.0)
    settings = settings_for(config, steps=12)
    assert (settings.profile, settings.eta, settings.first_solver, settings.first_guidance) == (
        'release', 1.0, 'dpmpp_2m', 9.0)
    assert (settings.guidance_text, settings.steps, settings.first_steps) == (5.0, 12, 12)
    assert settings_for(config, profile='paper', eta=0.5).eta == 0.5
    with pytest.raises(ValueError, match=r"unknown settings \['stepz'\]"):
        settings_for(config, stepz=3)
    with pytest.raises(ValueError, match='anchor_frame=16 is not one of the 16'):
        settings_for(config, anchor_frame=16)


@pytest.mark.parametrize('bad, message', [
    ({'profile': 'both'}, 'profile is one of'), ({'solver': 'euler'}, 'solver is one of'),
    ({'eta': 1.0, 'solver': 'dpmpp_2m'}, 'eta is at least 0'), ({'steps': 0}, 'at least 1')])
def test_settings_that_cannot_be_sampled_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        SampleSettings(**bad)


def test_keys_must_be_one_or_one_a_video():
    with pytest.raises(ValueError, match='3 videos need one key or 3'):
        start(jax.random.split(jax.random.key(0), 2), 3)
