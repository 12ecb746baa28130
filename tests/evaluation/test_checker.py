"""The attribute checker on a tiny problem: a square of three colours that moves left or right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.evaluation import checker
from st2v_jax.evaluation.checker_training import train, world_clips

pytestmark = pytest.mark.usefixtures('unoptimised')
HEADS = {'colour': 3, 'motion': 2}


def squares(key, n, size=16, frames=4):
    """-> clips [n, frames, size, size, 3], labels."""
    keys = jax.random.split(key, 3)
    colour, motion = jax.random.randint(keys[0], (n,), 0, 3), jax.random.randint(keys[1], (n,), 0, 2)
    start = jax.random.randint(keys[2], (n,), 5, 10)
    centre = start[:, None] + jnp.arange(frames) * (2 * motion[:, None] - 1)
    x = jnp.arange(size)
    across = jnp.abs(x - centre[..., None]) < 3
    inside = across[:, :, None, :] & (jnp.abs(x - 8) < 3)[:, None]
    clips = inside[..., None] * jax.nn.one_hot(colour, 3)[:, None, None, None] * 2 - 1
    return clips, {'colour': colour, 'motion': motion}


@pytest.fixture(scope='module')
def trained():
    return train(jax.random.key(0), squares, HEADS, seconds=120, steps=200, batch=16, rate=3e-3, channels=(8, 16))


@pytest.mark.slow
def test_it_learns_colour_and_motion(trained):
    params, history = trained
    clips, labels = squares(jax.random.key(1), 64)
    believed = checker.posteriors(params, clips, batch=32)
    for name in HEADS:
        assert (believed[name].argmax(-1) == labels[name]).mean() > 0.9, history
    assert history[-1]['loss'] < history[0]['loss'] / 1.5


def test_the_same_frames_backwards_move_the_other_way(trained):
    clips, _ = squares(jax.random.key(2), 16)
    mirrored = checker.posteriors(trained[0], np.asarray(clips)[:, ::-1])['motion']
    moving = checker.posteriors(trained[0], clips)['motion']
    assert (moving.argmax(-1) != mirrored.argmax(-1)).mean() > 0.9


def test_batches_do_not_change_the_answer(trained):
    clips, _ = squares(jax.random.key(3), 5)
    one, other = (checker.posteriors(trained[0], clips, batch=n) for n in (2, 8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


def test_a_file_holds_the_checker(trained, tmp_path):
    params, history = trained
    about = {'size': 16, 'history': history}
    checker.save(tmp_path / 'checker.npz', params, about)
    loaded, stored = checker.load(tmp_path / 'checker.npz')
    assert stored == about and jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_identity_is_one_with_itself_and_zero_with_its_opposite():
    p = {'colour': np.array([[0.2, 0.8], [1, 0]]), 'shape': np.array([[0.5, 0.5], [0, 1]]), 'motion': np.eye(2)}
    q = {name: value[:, ::-1] for name, value in p.items()}
    np.testing.assert_allclose(checker.identity(p, p), 1)
    assert checker.identity(p, q)[1] == 0 and 0 < checker.identity(p, q)[0] < 1


def test_world_clips_are_labelled_with_the_object_they_show():
    clips, labels = world_clips(seed=3, size=32)(jax.random.key(0), 4)
    assert clips.shape == (4, 16, 32, 32, 3) and np.abs(clips).max() <= 1
    assert labels.keys() == checker.CLASSES.keys()
    assert all(
        (labels[name] >= 0).all() and (labels[name] < len(names)).all() for name, names in checker.CLASSES.items()
    )


def test_a_radius_is_the_mean_of_the_steps():
    steps = np.log(np.array(checker.SIZES))
    believed = np.eye(len(steps))[[0, 5]]
    np.testing.assert_allclose(checker.radii(believed), [checker.SIZES[0], checker.SIZES[5]])
    np.testing.assert_allclose(np.log(checker.radii(believed.mean(0))), (steps[0] + steps[5]) / 2)


def test_time_is_a_limit_too():
    _, history = train(jax.random.key(0), squares, HEADS, seconds=0.5, steps=10**6, batch=4, channels=(4,))
    assert not history or history[-1]['step'] < 10**5
