"""The step and its state, on a problem small enough to know the answer: fit a line."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from st2v_jax import sharding, trees
from st2v_jax.data import pool
from st2v_jax.training import state, step
from st2v_jax.training.objective import Objective

OPTIMIZER = dict(clip=1.0, b1=0.9, b2=0.99, weight_decay=0.0)


def line(rows=8, n=5):
    """A pool of points of y = 3 x - 1."""
    x = np.random.default_rng(0).standard_normal((rows, n)).astype(np.float32)
    return {'x': x, 'y': 3 * x - 1}


def draw(points, key):
    return pool.draw(key, points)


def loss(params, batch):
    made = params['a']['kernel'] * batch['x'] + params['b']['bias']
    return jnp.mean((made - batch['y']) ** 2), {'mean': jnp.mean(batch['x'])}


def run(steps, *, trained='', devices=1, rate=lambda progress: 0.1, ema_decay=0.9, accumulation=1):
    mesh = sharding.make_mesh({'data': -1}, jax.devices()[:devices])
    params = {'a': {'kernel': np.float32(0.5)}, 'b': {'bias': np.float32(0)}}
    trained, frozen = state.split(params, lambda path: path.startswith(trained))
    optimizer = step.make_optimizer(**OPTIMIZER)
    start = jax.device_put(state.create(trained, optimizer), sharding.replicated(mesh))
    frozen = jax.device_put(frozen, sharding.replicated(mesh))
    one = step.make_step(draw, loss, optimizer, rate=rate, ema_decay=ema_decay, accumulation=accumulation)
    one = jax.jit(one, donate_argnames='state')
    data, now, rows = pool.place(line(), mesh), start, []
    for _ in range(steps):
        now, metrics = one(now, frozen, data, np.float32(0), jax.random.key(1))
        rows.append(jax.device_get(metrics))
    return now, frozen, rows


def test_training_finds_the_line():
    now, _, rows = run(150)
    assert rows[-1]['loss'] < 1e-2 * rows[0]['loss']
    np.testing.assert_allclose(now.params['a']['kernel'], 3, atol=0.2)


def test_frozen_parameters_stay_and_carry_no_optimizer_state():
    now, frozen, _ = run(3, trained='a/')
    assert frozen == {'b': {'bias': 0}}
    assert list(now.params) == list(now.ema) == ['a']
    adam = optax.tree.get(now.opt, 'mu')
    assert jax.tree.structure(adam) == jax.tree.structure(now.params)
    assert now.params['a']['kernel'] != 0.5


@pytest.mark.parametrize('devices', [2, 8])
def test_any_number_of_devices_trains_alike(devices):
    one, _, rows = run(5)
    many, _, rows_of_many = run(5, devices=devices)
    np.testing.assert_allclose([row['mean'] for row in rows], [row['mean'] for row in rows_of_many], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, many)


@pytest.mark.parametrize('parts, devices', [(2, 1), (8, 1), (2, 4)])
def test_parts_of_a_batch_train_as_the_batch(parts, devices):
    whole, _, rows = run(5)
    cut, _, rows_of_cut = run(5, devices=devices, accumulation=parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), rows, rows_of_cut)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, cut)


def test_batches_differ_from_step_to_step():
    _, _, rows = run(5)
    assert len({float(row['mean']) for row in rows}) == 5


def test_the_average_follows_at_once_and_settles_slowly():
    now, _, _ = run(1, ema_decay=0.999)
    # after one step, the average has moved by nine tenths away from the random start
    moved = now.params['a']['kernel'] - 0.5
    np.testing.assert_allclose(now.ema['a']['kernel'], 0.5 + 0.9 * moved, rtol=1e-6)


def test_large_gradients_are_clipped():
    optimizer = step.make_optimizer(**OPTIMIZER)
    params = {'kernel': jnp.ones((2, 2))}
    small, large = (
        optimizer.update({'kernel': jnp.full((2, 2), g)}, optimizer.init(params), params)[1] for g in (0.5, 1e6)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), small, large)


def test_learning_rate_rises_then_falls_to_zero():
    rate = lambda progress, decay: float(step.learning_rate(progress, peak=2.0, warmup=0.1, decay=decay))
    for decay in ('cosine', 'linear', 'constant'):
        assert rate(0.0, decay) == 0 and rate(0.05, decay) == pytest.approx(1) and rate(0.1, decay) == pytest.approx(2)
    assert rate(1.0, 'cosine') == rate(1.5, 'linear') == pytest.approx(0, abs=1e-6)
    assert rate(1.0, 'constant') == 2
    falling = [rate(p, 'cosine') for p in np.linspace(0.1, 1, 10)]
    assert falling == sorted(falling, reverse=True)
    with pytest.raises(ValueError, match="decay is one of constant, cosine, linear, not 'sudden'"):
        rate(0.5, 'sudden')


def test_operations_that_frozen_layers_do_not_need_are_not_counted():
    x, kernels = np.ones((3, 4), np.float32), {str(i): np.ones((4, 4), np.float32) for i in range(3)}

    def chain(params, x):
        for name in sorted(params):
            x = x @ params[name]
        return jnp.sum(x), {}

    chain_of = Objective(kernels, None, None, lambda data, key: data, chain, chain)
    product = 2 * 3 * 4 * 4
    # three forward; a gradient of each trained kernel, and of the activations after the first of them
    for trained, products in (('012', 3 + 3 + 2), ('12', 3 + 2 + 1), ('2', 3 + 1), ('0', 3 + 1 + 2)):
        params, frozen = state.split(kernels, lambda path: path in trained)
        assert step.needed_flops(chain_of, params, frozen, x) == products * product


def test_split_and_join_are_inverse():
    tree = {'unet': {'0': {'kernel': 1, 'bias': 2}}, 'cam': {'kernel': 3}}
    trained, frozen = state.split(tree, lambda path: path == 'unet/0/bias')
    assert trained == {'unet': {'0': {'bias': 2}}}
    assert trees.join(trained, frozen) == tree
    with pytest.raises(ValueError, match='matches none'):
        state.split(tree, lambda path: False)
