"""Shared noise and randomized blending, with denoisers whose answer shows which chunk gave it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax import sharding
from st2v_jax.diffusion import sampling
from st2v_jax.diffusion.log_snr import RefinerProcess, refiner_levels, sdedit_levels
from st2v_jax.diffusion.solvers import dpmpp_2m_sde_step
from st2v_jax.refinement import blend
from st2v_jax.refinement.blend import Plan

pytestmark = pytest.mark.usefixtures('unoptimised')
LEVELS = sdedit_levels(refiner_levels(RefinerProcess()), 4)
KEYS = jax.vmap(jax.random.key)(jnp.arange(2))
TWO = blend.split_keys(KEYS)
SHAPE = (2, 3, 4)
SMALL = dict(length=6, overlap=2)


def pointwise(x, level, texts=None):
    """A denoiser that looks at one number at a time."""
    return jnp.tanh(x * level.alpha) - 0.1 * level.sigma * x


def places(x, level, texts=None):
    """Each frame's position in its chunk, which shows the neighbour that gave it."""
    return jnp.broadcast_to(jnp.arange(x.shape[1], dtype=x.dtype)[:, None, None, None], x.shape)


def averaging(x, level, texts=None):
    """A denoiser that looks at the whole chunk, so that neighbours disagree."""
    return 0.5 * x + 0.3 * x.mean(1, keepdims=True) + 0.1 * places(x, level)


def refine(plan, variant, *, denoise=averaging, steps=None, trajectory=None, **kwargs):
    """The trajectory after `steps` (a slice) of the steps, each one call of the same program."""
    step = jax.jit(blend.denoising_step(denoise, plan, variant, TWO, **kwargs))
    if trajectory is None:
        trajectory = sampling.begin(blend.noise(variant, TWO.noise, 0, plan, SHAPE), LEVELS)
    for i in range(len(LEVELS.t) - 1)[steps or slice(None)]:
        trajectory = step(trajectory, jax.tree.map(lambda leaf, i=i: leaf[i], sampling.steps(LEVELS)))
    return trajectory


@pytest.mark.parametrize('length, overlap', [(24, 8), (112, 32), (6, 3), (2, 1)])
@pytest.mark.parametrize('frames', [1, 2, 5, 23, 24, 25, 39, 40, 41, 56, 240, 1200])
def test_a_plan_covers_every_frame_and_neighbours_share_the_overlap(frames, length, overlap):
    plan = Plan(frames, length, overlap)
    indices = plan.indices
    assert indices.shape == (plan.count, min(length, frames))
    assert set(indices.ravel()) == set(range(frames))
    shared = [len(set(a) & set(b)) for a, b in zip(indices[:-1], indices[1:])]
    assert all(n == overlap for n in shared[:-1]) and all(overlap <= n < length for n in shared[-1:])


@pytest.mark.parametrize(
    'bad, message',
    [((0,), 'at least 1 frame, not 0'), ((48, 24, 0), 'overlap by 1 to 12, not 0'), ((48, 24, 13), 'not 13')],
)
def test_impossible_plans_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        Plan(*bad)


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="variant is one of .* not 'S'"):
        blend.denoising_step(pointwise, Plan(48), 'S', TWO)


@pytest.mark.parametrize('noise_index', [0, 3])
def test_each_chunk_repeats_its_neighbours_noise_on_the_overlap(noise_index):
    plan = Plan(240)
    noise = blend.noise('B+S', KEYS, noise_index, plan, SHAPE)
    assert noise.shape == (2, plan.count, 24, *SHAPE)
    np.testing.assert_array_equal(noise[:, 1:-1, :8], noise[:, :-2, -8:])
    np.testing.assert_array_equal(blend.join(noise, plan), blend.noise('paper', KEYS, noise_index, plan, SHAPE))


def test_noise_does_not_depend_on_the_length_of_the_video():
    short, long = (blend.noise('paper', KEYS, 2, Plan(n), SHAPE) for n in (30, 240))
    np.testing.assert_array_equal(short, long[:, :30])


def test_separate_chunks_have_noise_of_their_own():
    noise = np.asarray(blend.noise('B', KEYS, 1, Plan(56), SHAPE)).reshape(6, -1)
    np.testing.assert_allclose(np.corrcoef(noise), np.eye(6), atol=0.2)


@pytest.mark.parametrize('variant, parts', [('paper', 9), ('release', 8)])
def test_how_often_a_frame_comes_from_the_left_chunk(variant, parts):
    plan, keys = Plan(40), jax.random.split(jax.random.key(0), 20_000)
    left = blend.frames_from_left(variant, keys, 5, plan)
    assert (left[:, 0] == 0).all()
    frame = np.arange(1, 9)
    share = (frame <= np.asarray(left[:, 1:])).mean(0)
    np.testing.assert_allclose(share, 1 - frame / parts, atol=0.012)  # 3.4 standard deviations


@pytest.mark.parametrize('variant', blend.BLENDING)
def test_every_chunk_and_step_draws_its_own_cut(variant):
    cuts = np.stack([blend.frames_from_left(variant, KEYS, i, Plan(400))[:, 1:] for i in range(30)])
    for axis in range(3):
        assert (np.diff(cuts, axis=axis) != 0).mean() > 0.8


@pytest.mark.parametrize('group', [1, 2, 3, 4, 8])
@pytest.mark.parametrize('frames', [18, 21, 22])
def test_frames_up_to_the_cut_are_the_left_chunks_and_from_there_the_rights(frames, group):
    plan = Plan(frames, 6, 2)
    left = np.array([[0, 2, 1, 0, 1][: plan.count], [0, 0, 2, 1, 2][: plan.count]])
    x0 = blend.predict(places, plan, jnp.zeros((2, frames, *SHAPE)), None, jnp.asarray(left), group=group)
    assert x0.shape == (2, frames, *SHAPE)
    for video in range(2):
        for frame in range(frames):
            # the last chunk whose part has begun
            begun = [k for k in range(plan.count) if frame >= 4 * k + left[video, k]]
            expected = frame - plan.indices[begun[-1], 0]
            assert (x0[video, frame] == expected).all(), (video, frame)


@pytest.mark.parametrize('variant', blend.BLENDING)
def test_blending_latents_after_the_step_is_the_same(variant):
    """Equation 8 literally: every chunk keeps latents of its own, and neighbours are blended after every step."""
    plan = Plan(14, **SMALL)
    whole = refine(plan, variant).x
    of_chunk = lambda long, k: long[:, plan.indices[k]]
    first = blend.noise(variant, TWO.noise, 0, plan, SHAPE)
    x = [of_chunk(first, k) for k in range(plan.count)]
    last_x0 = [jnp.zeros_like(chunk) for chunk in x]
    count, now, nxt = sampling.steps(LEVELS)
    for i in count:
        at, to, before = (
            jax.tree.map(lambda leaf, n=n: leaf[n], levels) for levels, n in ((now, i), (nxt, i), (now, max(i - 1, 0)))
        )
        fresh = blend.noise(variant, TWO.noise, i + 1, plan, SHAPE)
        x0 = [averaging(chunk, at) for chunk in x]
        x = [dpmpp_2m_sde_step(x[k], x0[k], last_x0[k], before, at, to, of_chunk(fresh, k)) for k in range(len(x))]
        left = blend.frames_from_left(variant, TWO.cuts, i, plan)
        for k in range(1, len(x)):
            mine = (jnp.arange(2) < left[:, k, None])[..., None, None, None]
            for chunks in (x, x0):
                both = jnp.where(mine, chunks[k - 1][:, -2:], chunks[k][:, :2])
                chunks[k - 1], chunks[k] = chunks[k - 1].at[:, -2:].set(both), chunks[k].at[:, :2].set(both)
        last_x0 = x0
    for k, chunk in enumerate(x):
        np.testing.assert_allclose(chunk, of_chunk(whole, k), atol=2e-6)


@pytest.mark.parametrize('variant', blend.VARIANTS)
@pytest.mark.parametrize('group', [2, 3, 4, 8])
def test_the_result_does_not_depend_on_how_chunks_are_grouped(variant, group):
    plan = Plan(31, **SMALL)
    one, grouped = (refine(plan, variant, denoise=pointwise, group=g) for g in (1, group))
    np.testing.assert_array_equal(one.x, grouped.x)
    np.testing.assert_array_equal(one.x0, grouped.x0)


@pytest.mark.parametrize('variant, devices', [('paper', 2), ('paper', 8), ('release', 8)])
def test_the_result_does_not_depend_on_the_number_of_devices(variant, devices):
    plan = Plan(31, **SMALL)
    mesh = sharding.make_mesh({'data': devices}, jax.devices()[:devices])
    spread = refine(plan, variant, denoise=pointwise, group=8, mesh=mesh)
    np.testing.assert_array_equal(refine(plan, variant, denoise=pointwise).x, spread.x)


def test_a_group_that_cannot_be_spread_is_refused():
    with pytest.raises(ValueError, match='3 cannot be split over 8 devices'):
        refine(Plan(34, **SMALL), 'paper', group=3, mesh=sharding.make_mesh({'data': 8}))


def test_chunks_really_are_spread():
    plan, mesh, seen = Plan(34, **SMALL), sharding.make_mesh({'data': 8}), []

    def look(x, level, texts):
        jax.debug.callback(lambda device: seen.append(int(device)), jax.lax.axis_index('data'))
        assert x.shape[0] == 2, 'one chunk of two videos'
        return pointwise(x, level)

    jax.block_until_ready(refine(plan, 'paper', denoise=look, group=8, mesh=mesh, steps=slice(1)))
    jax.effects_barrier()
    assert sorted(seen) == list(range(8))


@pytest.mark.parametrize('variant', blend.VARIANTS)
def test_stopped_and_continued_is_as_if_it_had_not_stopped(variant):
    plan = Plan(31, **SMALL)
    part = refine(plan, variant, steps=slice(0, 2))
    stored = jax.tree.map(np.asarray, part)
    rest = refine(plan, variant, steps=slice(2, None), trajectory=jax.tree.map(jnp.asarray, stored))
    np.testing.assert_array_equal(rest.x, refine(plan, variant).x)


@pytest.mark.parametrize('frames', [1, 5, 6])
def test_a_short_video_is_one_chunk_and_all_variants_with_its_noise_agree(frames):
    plan = Plan(frames, **SMALL)
    long = refine(plan, 'paper').x
    np.testing.assert_allclose(blend.join(refine(plan, 'B+S').x, plan), long, atol=1e-6)


def test_shared_noise_brings_neighbours_closer():
    plan = Plan(56)
    gap = {}
    for variant in blend.BASELINES:
        chunks = refine(plan, variant, denoise=lambda x, level, texts: 0.5 * x + 0.3 * x.mean(1, keepdims=True)).x
        gap[variant] = float(jnp.abs(chunks[:, 1:, :8] - chunks[:, :-1, -8:]).mean())
    assert gap['B+S'] < gap['B'] / 2


def test_one_program_for_all_steps_and_no_key_used_twice():
    step = blend.denoising_step(averaging, Plan(14, **SMALL), 'paper', TWO)
    traced = jax.jit(chex.assert_max_traces(step, n=1))
    x = sampling.begin(jnp.ones((2, 14, *SHAPE)), LEVELS)
    x = traced(x, jax.tree.map(lambda leaf: leaf[0], sampling.steps(LEVELS)))
    traced(x, jax.tree.map(lambda leaf: leaf[1], sampling.steps(LEVELS)))
    with jax.debug_key_reuse(True):
        refine(Plan(14, **SMALL), 'paper', steps=slice(2))


def test_videos_of_a_batch_are_blended_on_their_own():
    plan = Plan(31, **SMALL)
    both = refine(plan, 'paper').x
    one = blend.split_keys(KEYS[1:])
    step = jax.jit(blend.denoising_step(averaging, plan, 'paper', one))
    start = sampling.begin(blend.noise('paper', one.noise, 0, plan, SHAPE), LEVELS)
    end, _ = jax.lax.scan(lambda c, i: (step(c, i), None), start, sampling.steps(LEVELS))
    np.testing.assert_allclose(end.x[0], both[1], atol=1e-6)
