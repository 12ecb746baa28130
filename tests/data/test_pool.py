import jax
import numpy as np
import pytest

from st2v_jax import sharding
from st2v_jax.data import pool


@pytest.fixture(params=[1, 2, 8])
def mesh(request):
    return sharding.make_mesh({'data': -1}, jax.devices()[: request.param])


def numbers():
    return np.arange(8 * 6).reshape(8, 6)


@pytest.mark.parametrize('columns', [1, 3])
def test_a_pool_holds_what_was_made_of_every_input(mesh, columns):
    made = pool.fill(lambda inputs, scale: {'twice': inputs * scale}, numbers(), 2, mesh, columns=columns)
    np.testing.assert_array_equal(made['twice'], 2 * numbers())
    assert made['twice'].sharding.is_equivalent_to(sharding.split_rows(mesh), 2)


def test_a_batch_is_a_function_of_the_key_alone(mesh):
    one = sharding.make_mesh({'data': 1}, jax.devices()[:1])
    key = jax.random.key(3)
    here, there = (jax.jit(pool.draw)(key, pool.place({'a': numbers(), 'b': -numbers()}, m)) for m in (mesh, one))
    jax.tree.map(np.testing.assert_array_equal, here, there)
    np.testing.assert_array_equal(here['a'], -here['b'])  # leaves are drawn together
    np.testing.assert_array_equal(here['a'] // 6, np.arange(8))  # example i comes from row i
    other = jax.jit(pool.draw)(jax.random.key(4), pool.place(numbers(), mesh))
    assert (np.asarray(other) != np.asarray(here['a'])).any()


def test_every_scene_is_drawn():
    draws = jax.vmap(pool.draw, (0, None))(jax.random.split(jax.random.key(0), 100), numbers())
    assert set(np.asarray(draws).ravel()) == set(range(48))


def test_pools_that_cannot_be_cut_evenly_are_refused(mesh):
    with pytest.raises(ValueError, match='a pool of 10 scenes cannot be cut into 8 equal rows'):
        pool.rows(np.arange(10), 8, mesh)
    with pytest.raises(ValueError, match='a pool of 6 columns cannot be made 4 columns at a time'):
        pool.fill(lambda inputs, _: inputs, numbers(), None, mesh, columns=4)
