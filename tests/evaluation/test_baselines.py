"""The ways to make a long video that streaming is compared with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.cli import evaluate_methods
from st2v_jax.evaluation import baselines
from st2v_jax.models import build, free_noise
from st2v_jax.models.free_noise import WindowedUNet3D, windows
from st2v_jax.models.system import encode_prompt
from st2v_jax.streaming import stream
from st2v_jax.streaming.generate import load

pytestmark = pytest.mark.usefixtures('unoptimised')


class Attends:
    """Stands for an attention; `over_frames` is given."""

    def __init__(self, over_frames):
        self.over_frames = over_frames


@pytest.mark.parametrize(('frames', 'length', 'stride'), [(16, 16, 4), (17, 16, 4), (40, 16, 4), (9, 4, 3), (5, 4, 9)])
def test_windows_hold_every_frame_and_average_to_what_they_agree_on(frames, length, stride):
    shown = windows(frames, length, stride)
    assert {*shown.ravel()} == {*range(frames)} and shown[-1, -1] == frames - 1
    assert (np.diff(shown, axis=1) == 1).all() and (np.diff(shown[:, 0]) <= stride).all()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, frames, 3, 5), np.float32))
    same = free_noise._over_windows(length, stride, Attends(lambda x: x), x)
    np.testing.assert_allclose(same, x, atol=1e-6)


def test_the_middle_of_a_window_counts_most():
    x = jnp.arange(5.0)[None, :, None, None]
    mean = Attends(lambda x: jnp.broadcast_to(x.mean(1, keepdims=True), x.shape))
    found = free_noise._over_windows(4, 1, mean, x)[0, :, 0, 0]  # windows 0-3 and 1-4, weights 1 2 2 1, means 1.5, 2.5
    np.testing.assert_allclose(found, [1.5, (2 * 1.5 + 2.5) / 3, 2, (1.5 + 2 * 2.5) / 3, 2.5], atol=1e-6)


def test_less_than_a_window_is_refused():
    with pytest.raises(ValueError, match='at least the 16 frames of one, not 15'):
        windows(15, 16, 4)


def test_noise_comes_back_in_another_order():
    key = stream.video_keys([1, 2])
    noise = np.asarray(baselines.rescheduled(key, 30, 8, 4, (2, 3)))
    assert noise.shape == (2, 30, 2, 3) and len(np.unique(noise[:, :8])) == 2 * 8 * 6
    orders = set()
    for begin in range(8, 28, 4):
        before, now = noise[:, begin - 8 : begin - 4, 0, 0], noise[:, begin : begin + 4, 0, 0]
        np.testing.assert_array_equal(np.sort(now), np.sort(before))
        orders |= {tuple(np.argsort(np.argsort(row))) for row in np.concatenate([now, before])}
    assert len(orders) > 2
    np.testing.assert_array_equal(noise[1:], baselines.rescheduled(key[1:], 30, 8, 4, (2, 3)))


@pytest.fixture(scope='module')
def model(tiny_folder):
    return load(tiny_folder)


@pytest.fixture(scope='module')
def asked(model):
    """(settings, parameters, prompt, key) of two videos."""
    ids, null_ids = (model.tokenizer.ids(texts) for texts in (['a red ball moves left', 'a blue star'], ['', '']))
    prompt = encode_prompt(model.system, model.params, ids, null_ids)
    return model.settings(steps=1), model.params, prompt, stream.video_keys([1, 2])


@pytest.fixture
def seen(monkeypatch):
    """The states that chunks are made from, as they come."""
    states, real = [], stream.stream
    monkeypatch.setattr(stream, 'stream', lambda *given, **more: states.append(given[4]) or real(*given, **more))
    return states


@pytest.mark.slow
def test_one_window_is_the_unet(model):
    config, unet = model.config, model.params['unet']
    x = jax.random.normal(jax.random.key(0), (1, *config.latent_shape))
    text = jax.random.normal(jax.random.key(1), (1, 77, config.backbone.context_width))
    run = lambda network: network(unet, x, jnp.array([7]), network(unet, text, method='keys_values'))
    own, windowed = build.UNet3D, WindowedUNet3D
    one, other = build.network(own, config.backbone), build.network(windowed, config.backbone, len(x[0]), 4)
    np.testing.assert_allclose(jax.jit(run, static_argnums=0)(one), jax.jit(run, static_argnums=0)(other), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', baselines.METHODS)
def test_each_method_makes_finite_frames_that_depend_on_video_and_key(name, model, asked):
    settings, params, prompt, key = asked
    wanted = model.config.contract.first_frames + 1
    make = lambda key: np.concatenate(
        [*baselines.METHODS[name](model, settings, params, prompt, key, wanted)], 1, dtype=np.float32
    )
    video = make(key)
    assert video.shape[0] == 2 and video.shape[1] >= wanted and np.isfinite(video).all()
    assert np.abs(video[0] - video[1]).max() > 0.01
    np.testing.assert_array_equal(video, make(key))


@pytest.mark.slow
def test_without_anchor_later_chunks_have_the_picture_without_content(model, asked, seen):
    settings, params, prompt, key = asked
    first, _ = baselines.no_anchor(model, settings, params, prompt, key, model.config.contract.first_frames + 1)
    np.testing.assert_array_equal(seen[1].anchor, prompt.null_anchor)
    np.testing.assert_array_equal(seen[1].frames, first[:, -model.config.contract.memory :])


@pytest.mark.slow
def test_last_frame_knows_no_more_than_the_last_frame(model, asked, seen):
    settings, params, prompt, key = asked
    first, _ = baselines.last_frame(model, settings, params, prompt, key, model.config.contract.first_frames + 1)
    assert seen[0].is_first and seen[1].anchor is None and int(seen[1].index) == 1
    np.testing.assert_array_equal(seen[1].frames, np.repeat(first[:, -1:], model.config.contract.memory, 1))


def test_the_command_line_knows_every_method():
    assert tuple(baselines.METHODS) == evaluate_methods.WAYS
