"""Trees of parameters: every leaf has one path, and nothing is lost in either direction."""

import jax
import numpy as np

from st2v_jax import trees

TREE = {'vae': {'conv': {'kernel': 1, 'bias': 2}}, 'blocks': {'0': {'scale': 3}, '1': {'scale': 4}}, 'alpha': 5}
FLAT = {'vae/conv/kernel': 1, 'vae/conv/bias': 2, 'blocks/0/scale': 3, 'blocks/1/scale': 4, 'alpha': 5}


def test_flatten_and_unflatten_undo_each_other():
    assert trees.flatten(TREE) == FLAT and list(trees.flatten(TREE)) == list(FLAT)
    assert trees.unflatten(FLAT) == TREE
    assert trees.flatten(FLAT) == FLAT
    assert trees.flatten({}) == trees.unflatten({}) == {}


def test_what_is_split_is_joined_again():
    scales, others = trees.split(TREE, lambda path: path.endswith('scale'))
    assert scales == {'blocks': {'0': {'scale': 3}, '1': {'scale': 4}}}
    assert trees.flatten(others).keys() == FLAT.keys() - trees.flatten(scales).keys()
    assert trees.join(scales, others) == TREE
    assert trees.split(TREE, lambda path: False) == ({}, TREE)


def test_the_last_of_joined_trees_counts():
    average = {'blocks': {'1': {'scale': -4}}}
    joined = trees.join(TREE, average)
    assert joined['blocks'] == {'0': {'scale': 3}, '1': {'scale': -4}} and joined['vae'] == TREE['vae']
    assert TREE['blocks']['1']['scale'] == 4, 'the trees that are joined stay as they are'


def test_leaves_may_be_shapes_or_traced():
    shapes = {'a': {'b': jax.ShapeDtypeStruct((2,), np.float32)}}
    assert trees.unflatten(trees.flatten(shapes)) == shapes
    doubled = jax.jit(lambda tree: trees.join(tree, {'a': {'b': 2 * tree['a']['b']}}))(
        jax.tree.map(
            np.ones,
            {
                'a': {'b': 2},
                'c': 1,
            },
        )
    )
    np.testing.assert_array_equal(doubled['a']['b'], [2, 2])
