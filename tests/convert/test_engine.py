"""Promises of the conversion: strict, both ways, and every complaint at once."""

import numpy as np
import pytest

from st2v_jax.convert.engine import (
    CONV,
    CONV1D,
    FRAMES,
    LINEAR,
    POINT,
    POINT1D,
    SAME,
    VECTOR,
    ConversionError,
    Row,
    Table,
    Under,
    compare,
    convert,
    export,
    fused,
    linear,
    names_of,
    norm,
)
from st2v_jax.trees import flatten

TABLE = Table(
    rows=(
        *linear('blocks.{n}.{to:q|k}_proj', '{n}/to_{to}'),
        *norm('blocks.{n}.norm', '{n}/norm'),
        Row('blocks.{n}.joint', ('{n}/left/kernel', '{n}/right/kernel'), fused(LINEAR, 2)),
        Row(('{n}.first', '{n}.second'), '{n}/sum', SAME._replace(to_ours=np.add, to_theirs=lambda w: (w, 0 * w))),
        Row('alpha', 'alpha'),
    ),
    ignored=(('counter', 'a buffer'),),
    renamed=(('layers.{n}.{rest:.+}', 'blocks.{n}.{rest}'),),
)


def tensors():
    rng = np.random.default_rng(0)
    shapes = {'q_proj.weight': (2, 3), 'q_proj.bias': (2,), 'k_proj.weight': (2, 3), 'k_proj.bias': (2,)}
    shapes |= {'norm.weight': (3,), 'norm.bias': (3,), 'joint': (4, 3)}
    named = {f'blocks.{n}.{name}': rng.standard_normal(shape) for n in '01' for name, shape in shapes.items()}
    named |= {f'{n}.{name}': rng.standard_normal(2) for n in '01' for name in ('first', 'second')}
    return {name: value.astype(np.float32) for name, value in named.items()} | {'alpha': np.float32(0.5)}


def abstract():
    zeros = lambda *shape: np.zeros(shape, np.float32)
    block = {
        'to_q': {'kernel': zeros(3, 2), 'bias': zeros(2)},
        'to_k': {'kernel': zeros(3, 2), 'bias': zeros(2)},
        'norm': {'scale': zeros(3), 'bias': zeros(3)},
        'left': {'kernel': zeros(3, 2)},
        'right': {'kernel': zeros(3, 2)},
        'sum': zeros(2),
    }
    return {'0': block, '1': block, 'alpha': zeros()}


def test_every_tensor_lands_where_its_row_says():
    given = tensors()
    params = convert(given, TABLE, abstract())
    np.testing.assert_array_equal(params['1']['to_k']['kernel'], given['blocks.1.k_proj.weight'].T)
    np.testing.assert_array_equal(params['0']['right']['kernel'], given['blocks.0.joint'][2:].T)
    np.testing.assert_array_equal(params['0']['sum'], given['0.first'] + given['0.second'])
    assert params['alpha'] == 0.5


def test_export_and_convert_undo_each_other():
    params = convert(tensors(), TABLE, abstract())
    exported = export(params, TABLE)
    assert exported.keys() == tensors().keys()
    again = flatten(convert(exported, TABLE, abstract()))
    for path, value in flatten(params).items():
        np.testing.assert_array_equal(again[path], value, path)


def test_older_names_and_ignored_tensors_are_read():
    given = {name.replace('blocks.', 'layers.'): value for name, value in tensors().items()} | {'counter': np.zeros(7)}
    assert convert(given, TABLE, abstract()).keys() == {'0', '1', 'alpha'}


def test_half_precision_becomes_float32():
    given = {name: value.astype(np.float16) for name, value in tensors().items()}
    assert {leaf.dtype for leaf in flatten(convert(given, TABLE, abstract())).values()} == {np.dtype(np.float32)}


def test_all_complaints_come_together():
    given = tensors() | {
        'extra.weight': np.zeros(1),
        'blocks.2.norm.bias': np.zeros(3),
        'layers.0.norm.bias': np.zeros(3),
    }
    given['blocks.0.q_proj.weight'] = np.zeros((3, 3))
    given['blocks.0.k_proj.weight'] = np.zeros(3)
    given['blocks.0.joint'] = np.zeros((5, 3))
    for gone in ('blocks.1.norm.weight', '0.second'):
        del given[gone]
    table = Table((*TABLE.rows, Row('al{rest:pha}', 'beta{rest}')), TABLE.ignored, TABLE.renamed)
    with pytest.raises(ConversionError) as raised:
        convert(given, table, abstract())
    expected = [
        'extra.weight: 0 rows of the table match',
        'alpha: 2 rows of the table match',
        'layers.0.norm.bias: is blocks.0.norm.bias under another name',
        '0.second: missing, though 0.first is there',
        'blocks.2.norm.bias: the model has no 2/norm/bias',
        'blocks.0.q_proj.weight: 0/to_q/kernel is (3, 2), the checkpoint gives (3, 3)',
        'blocks.0.k_proj.weight: (3,) is not laid out as linear [o, i]',
        'blocks.0.joint: (5, 3) is not laid out as 2 x linear [o, i]',
        '1/norm/scale: nothing in the checkpoint fills it',
        'alpha: nothing in the checkpoint fills it',
    ]
    assert set(expected) <= set(raised.value.complaints)
    follow = {
        f'0/{path}: nothing in the checkpoint fills it'
        for path in ('sum', 'to_k/kernel', 'left/kernel', 'right/kernel')
    }
    assert set(raised.value.complaints) == set(expected) | follow
    assert all(line in str(raised.value) for line in expected)


def test_misfits_are_told_apart_without_an_error():
    given = tensors() | {'extra.weight': np.zeros(1), 'blocks.0.q_proj.weight': np.zeros(3)}
    del given['blocks.1.norm.weight'], given['blocks.1.joint'], given['0.second']
    fit = compare(given, TABLE, abstract())
    assert {(misfit.kind, misfit.name) for misfit in fit.misfits} == {
        ('unknown', 'extra.weight'),
        ('shape', 'blocks.0.q_proj.weight'),
        ('follows', '0/to_q/kernel'),
        ('missing', '0.second'),
        ('follows', '0/sum'),
        ('missing', '1/norm/scale'),
        ('missing', '1/left/kernel'),
        ('missing', '1/right/kernel'),
    }
    assert fit.paths['blocks.0.joint'] == ('0/left/kernel', '0/right/kernel')
    assert given.keys() - fit.paths.keys() == {'extra.weight'}


def test_parameters_know_the_tensors_that_fill_them():
    assert names_of(['0/left/kernel', '1/sum', 'unknown'], TABLE) == {
        '0/left/kernel': ('blocks.0.joint',),
        '1/sum': ('1.first', '1.second'),
    }


def test_export_complains_about_what_no_row_knows():
    with pytest.raises(ConversionError, match='unknown/kernel: 0 rows'):
        export({**convert(tensors(), TABLE, abstract()), 'unknown': {'kernel': np.zeros(1)}}, TABLE)


@pytest.mark.parametrize(
    ('layout', 'theirs', 'ours'),
    [
        (LINEAR, (2, 3), (3, 2)),
        (CONV1D, (2, 3, 5), (5, 3, 2)),
        (CONV, (2, 3, 5, 7), (5, 7, 3, 2)),
        (POINT1D, (2, 3, 1), (3, 2)),
        (POINT, (2, 3, 1, 1), (3, 2)),
        (FRAMES, (2, 3, 5, 1, 1), (5, 3, 2)),
        (VECTOR, (4,), (1, 4)),
        (SAME, (), ()),
    ],
)
def test_layouts_keep_every_number(layout, theirs, ours):
    w = np.random.default_rng(0).standard_normal(theirs)
    assert layout.to_ours(w).shape == ours
    np.testing.assert_array_equal(layout.to_theirs(layout.to_ours(w)), w)


def test_a_wide_kernel_is_not_taken_for_a_linear_map():
    with pytest.raises(ConversionError, match='is not laid out as'):
        convert({'w': np.zeros((2, 3, 3, 3))}, Table((Row('w', 'w', POINT),)), {'w': np.zeros((3, 2))})


def test_sides_of_a_row_have_the_same_placeholders():
    with pytest.raises(ValueError, match=r"'w' lacks the placeholders \['n'\]"):
        convert({}, Table((Row('{n}.w', 'w'),)), {}) or export({'w': 0}, Table((Row('{n}.w', 'w'),)))


def test_a_part_of_a_checkpoint_is_fetched_only_when_asked_for():
    class Disk(dict):
        def __getitem__(self, name):
            raise AssertionError(f'{name} was read')

    part = Under(Disk({'vae.a': 1, 'vae.b': 2, 'unet.a': 3}), 'vae.')
    assert list(part) == ['a', 'b'] and len(part) == 2
    with pytest.raises(AssertionError, match='vae.a was read'):
        part['a']
