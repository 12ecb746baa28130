"""Videos that go on from given frames, or begin with a given picture."""

import dataclasses

import jax
import numpy as np
import pytest
from streaming.counting import CONFIG, COUNTING, PARAMS, SETTINGS, STEP, prompt_of

from st2v_jax.models.clip import preprocess
from st2v_jax.streaming import stream as streaming
from st2v_jax.streaming.generate import Model
from st2v_jax.streaming.own_start import after_frames, opening, with_picture
from st2v_jax.streaming.settings import settings_for
from st2v_jax.streaming.stream import StreamState
from st2v_jax.video_io.start import Start

pytestmark = pytest.mark.usefixtures('unoptimised')
MODEL = Model(CONFIG, None, PARAMS, COUNTING)


def frames(*values):
    """Grey frames [n, H, W, 3] of these values."""
    return np.float32(values)[:, None, None, None] * np.ones((*CONFIG.frame_size, 3), np.float32)


def embedded(value):
    """What the stand-in for the image tower says of a grey frame."""
    return preprocess(frames(value), CONFIG.image.image_size).mean((1, 2))[0]


def made(state, chunks):
    """(frames of each chunk, the state after them) of a counting video."""
    found, steps = [], streaming.stream(COUNTING, SETTINGS, PARAMS, prompt_of(0.5), state)
    for _ in range(chunks):
        some, state = next(steps)
        found.append(some[0, :, 0, 0, 0])
    return found, state


@pytest.mark.parametrize('count', [8, 9, 30])
def test_a_video_goes_on_from_the_last_frames_that_are_given(count):
    given = -0.9 + STEP * np.arange(count)
    state = after_frames(MODEL, frames(*given), seed=7)
    assert (int(state.index), int(state.given), state.is_first) == (0, count, False)
    np.testing.assert_allclose(state.anchor[0], embedded(-0.9), atol=1e-6)
    found, state = made(state, 3)
    assert [len(some) for some in found] == [8, 8, 8], 'its first chunk is like the later ones'
    np.testing.assert_allclose(np.concatenate(found), -0.9 + STEP * np.arange(count, count + 24), atol=1e-4)
    restored = StreamState.from_arrays(state.to_arrays())
    assert int(restored.index) == 3 and int(restored.given) == count
    np.testing.assert_array_equal(made(restored, 1)[0], made(state, 1)[0])


def test_the_anchor_is_the_first_frame_or_another_picture():
    clip = frames(*np.linspace(0, 0.5, 9))
    own = opening(MODEL, Start(clip), seed=1).anchor
    other = opening(MODEL, Start(clip, frames(0.75)[0]), seed=1).anchor
    np.testing.assert_allclose(own[0], embedded(0), atol=1e-6)
    np.testing.assert_allclose(other[0], embedded(0.75), atol=1e-6)


def test_bytes_and_floats_of_the_same_frames_are_the_same_start():
    bytes_ = np.random.default_rng(0).integers(0, 256, (8, *CONFIG.frame_size, 3), np.uint8)
    floats = bytes_.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(after_frames(MODEL, bytes_).frames, after_frames(MODEL, floats).frames, atol=1e-6)


def test_videos_in_a_batch_start_as_they_would_alone():
    clips = np.stack([frames(*np.linspace(a, 0, 8)) for a in (-1, 1)])
    both = after_frames(MODEL, clips, seed=[3, 7])
    alone = after_frames(MODEL, clips[1], seed=7)
    for name in ('frames', 'anchor'):
        np.testing.assert_array_equal(getattr(both, name)[1:], getattr(alone, name))
    np.testing.assert_array_equal(jax.random.key_data(both.key)[1:], jax.random.key_data(alone.key))


@pytest.mark.parametrize('profile', ['paper', 'release'])
def test_a_picture_is_the_first_frame_and_lets_the_others_go_one_after_the_other(profile):
    settings = settings_for(CONFIG, steps=20, profile=profile)
    state = with_picture(MODEL, frames(-0.25)[0], seed=3)
    assert state.is_first and state.given is None
    levels = streaming.levels_of(COUNTING, settings, state)
    noise, picture = streaming._noise(COUNTING, state, 0), state.picture[:, None]
    held = []
    for number, _, x in streaming.denoised(COUNTING, settings, PARAMS, prompt_of(0.5), state):
        wanted = levels.alpha[number] * picture + levels.sigma[number] * noise
        held.append(np.isclose(x, wanted, atol=1e-5).all((0, 2, 3, 4)))
    held = np.array(held)
    assert held[0].all() and held[:, 0].all(), 'all show it at first, the first frame to the end'
    until = held.sum(0)
    assert (np.diff(until) <= 0).all() and until[1] >= 10 and until[-1] <= 4 and not held[-1, 1:].any()
    np.testing.assert_array_equal(x[:, 0], state.picture)
    chunk = streaming.finished(COUNTING, settings, PARAMS, x, state)
    np.testing.assert_allclose(chunk.frames[0, 0], -0.25, atol=1e-5)
    assert chunk.frames.shape[1] == 16 and chunk.state.picture is None and int(chunk.state.index) == 1
    np.testing.assert_allclose(chunk.state.anchor[0], embedded(-0.25), atol=1e-5)


def test_one_program_of_a_chunk_with_a_picture_makes_the_same():
    state = with_picture(MODEL, frames(0.5)[0], seed=3)
    (steps,), _ = made(state, 1)
    whole, _ = streaming.next_chunk(COUNTING, SETTINGS, PARAMS, prompt_of(0.5), state)
    np.testing.assert_allclose(whole[0, :, 0, 0, 0], steps, atol=1e-5)


@pytest.mark.parametrize(
    'start, told',
    [
        (lambda: after_frames(MODEL, frames(*range(7))), 'goes on from at least 8 frames, not from 7'),
        (lambda: after_frames(MODEL, np.zeros((9, 16, 24, 3))), r'are \(16, 16, 3\), not of the shape'),
        (lambda: after_frames(MODEL, frames(*range(8)), seed=-1), 'a seed is between 0 and'),
        (lambda: after_frames(MODEL, frames(*range(8)), seed=[1, 2]), 'has a seed and an anchor of its own'),
        (lambda: with_picture(MODEL, np.zeros((16, 16))), r'are \(16, 16, 3\), not of the shape \(16, 16\)'),
        (
            lambda: after_frames(dataclasses.replace(MODEL, params={'vae': {}, 'unet': {}}), frames(*range(8))),
            'a model without CAM makes one chunk',
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused(start, told):
    with pytest.raises(ValueError, match=told):
        start()


def test_a_contract_counts_the_new_frames_after_given_ones():
    contract = dataclasses.replace(CONFIG.contract, given=True)
    assert [contract.chunks(n) for n in (1, 8, 9, 96)] == [1, 1, 2, 12]
    assert [contract.frames_after(n) for n in (1, 2, 12)] == [8, 16, 96]
