"""A value that is not finite is traced to the layer that computed it."""

import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.training.diagnosis import not_finite


def network(params, x):
    for name in ('first', 'second', 'third'):
        layer = params[name]
        x = jnp.tanh(x @ layer['kernel'].astype(jnp.bfloat16).astype(jnp.float32) + layer['bias'])
        if name == 'second':
            x = jnp.sqrt(x)  # not a number where x is negative
    return jnp.sum(x), {}


def params_of(**biases):
    return {
        name: {'kernel': np.eye(2, dtype=np.float32), 'bias': np.float32(biases.get(name, 1))}
        for name in ('first', 'second', 'third')
    }


X = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    'biases, x, where',
    [
        ({'second': -9}, X, 'after second'),
        ({'third': np.inf}, X, 'in parameter third/bias'),
        ({}, X * np.nan, 'in batch '),
        ({'first': -30, 'second': 1}, X, 'in the gradient of first/bias, first/kernel, second/bias'),
    ],
)
def test_the_first_place_is_named(biases, x, where):
    params = params_of(**biases)
    if where.startswith('in the gradient'):  # sqrt has no slope at 0
        params['second'] = {'kernel': np.zeros((2, 2), np.float32), 'bias': np.float32(0)}
    assert not_finite(network, params, {}, x) == where


def test_frozen_layers_are_named_too():
    params = params_of(second=-9)
    assert not_finite(network, {'third': params.pop('third')}, params, X) == 'after second'
