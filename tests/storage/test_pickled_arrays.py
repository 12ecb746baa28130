"""Pickles of numpy arrays: what numpy writes comes back, and nothing else is read or run."""

import pickle
import struct

import numpy as np
import pytest
from harmless import harmless
from torch_files import call, dict_of, name, plain, program

from st2v_jax.storage import pickled_arrays
from st2v_jax.storage.untrusted import UnsafeCheckpointError

TYPES = ('<f2', '<f4', '<f8', '>f4', '>i2', 'i1', 'u1', '<i2', '<i4', '<i8', '<u2', '<u4', '<u8')
DATA = b'B' + struct.pack('<I', 8) + bytes(8)
ARRAY = call(name('numpy.core.multiarray', '_reconstruct'), name('numpy', 'ndarray'), plain((0,)), b'C\x01b')


def kind(code='f4', state=(3, '<', None, None, None, -1, -1, 0)):
    return call(name('numpy', 'dtype'), plain(code), b'\x89', b'\x88') + plain(state) + b'b'


def array(shape=(2,), of=None, data=DATA, version=1, order=b'\x89'):
    """Opcodes of an array of two numbers, unless told otherwise."""
    return ARRAY + b'(' + plain(version) + plain(shape) + (of or kind()) + order + data + b'tb'


def written(path, value):
    path.write_bytes(program(value))
    return path


@pytest.mark.parametrize('protocol', (3, 4))
@pytest.mark.parametrize('of', TYPES)
def test_what_numpy_writes_comes_back(of, protocol, tmp_path):
    values = np.arange(24).reshape(2, 3, 4).astype(of)
    tree = {'a': {'rows': values, 'columns': np.asfortranarray(values), 'b/c': values[:, :0]}, 'one': values[1, 2, 3]}
    (tmp_path / 'x').write_bytes(pickle.dumps(tree, protocol))
    with harmless(tmp_path / 'x'):
        found = pickled_arrays.read(tmp_path / 'x')
    assert {path: (leaf.dtype, leaf.shape) for path, leaf in found.items()} == {
        'a/rows': (values.dtype, (2, 3, 4)),
        'a/columns': (values.dtype, (2, 3, 4)),
        'a/b/c': (values.dtype, (2, 0, 4)),
        'one': (values[1, 2, 3].dtype, ()),
    }
    np.testing.assert_array_equal(found['a/columns'], values)
    assert found['one'] == values[1, 2, 3] and not found['a/rows'].flags.writeable


def test_names_before_and_since_numpy_2_are_known(tmp_path):
    since = array().replace(b'numpy.core', b'numpy._core')
    found = pickled_arrays.read(written(tmp_path / 'x', dict_of(old=array(), new=since)))
    assert {path: leaf.tolist() for path, leaf in found.items()} == {'old': [0, 0], 'new': [0, 0]}


PICKLED = {
    'objects': np.array([{}, print], object),
    'fields': np.zeros(2, [('a', 'f4'), ('b', 'f4')]),
    'sub-arrays': np.dtype(('f4', (2,))),
    'text': np.array(['abc']),
    'bytes': np.array([b'abc']),
    'truth': np.array([True]),
    'complex': np.zeros(2, complex),
    'long doubles': np.zeros(2, np.longdouble),
    'times': np.zeros(2, 'M8[s]'),
    'raw': np.zeros(2, 'V4'),
    'a type alone': np.dtype('f4'),
    'no array': 3,
    'a list': [np.zeros(2)],
    'numbered': {1: np.zeros(2)},
    'a random generator': np.random.default_rng(0),
    'a memory map': np.ma.zeros(2),
}


@pytest.mark.parametrize('case', PICKLED)
def test_other_values_are_refused(case, tmp_path):
    (tmp_path / 'x').write_bytes(pickle.dumps({'w': PICKLED[case]}, 4))
    with harmless(tmp_path / 'x'), pytest.raises(UnsafeCheckpointError, match=r'x: ') as error:
        pickled_arrays.read(tmp_path / 'x')
    assert len(str(error.value)) < 500 and '\n' not in str(error.value)


BIG = (1 << 40, 1 << 40)
# Each of 15 dicts has the one before twice, so that they are 32,768 when they are walked through
BOMB = b'}q\x640' + b''.join(
    b'}q%c(' % (101 + i) + plain('a') + b'h%c' % (100 + i) + plain('b') + b'h%cu0' % (100 + i) for i in range(15)
)
HOSTILE = {
    'more numbers than bytes': (array((3,)), 'takes 12 bytes, the file has 8'),
    'fewer numbers than bytes': (array((1,)), 'takes 4 bytes, the file has 8'),
    'huge shape': (array(BIG), 'the file has 8'),
    'huge and empty': (array((0, 1 << 40), data=b'C\0'), 'the file has 0 bytes'),
    'negative': (array((-1, -2)), 'a shape has at most'),
    'a shape that is no tuple': (array(2), 'a shape has at most'),
    'many axes': (array((1,) * 33), 'a shape has at most'),
    'a shape of shapes': (array(((2,),)), 'a shape has at most'),
    'bytes that are text': (array(data=plain('12345678')), 'an array of shape'),
    'bytes that are numbers': (array(data=plain(8)), 'an array of shape'),
    'a type that is text': (array(of=plain('<f4')), 'a type of numbers'),
    'a type without an order': (array(of=call(name('numpy', 'dtype'), plain('f4'), b'\x89', b'\x88')), 'a type of num'),
    'objects': (kind('O8'), 'whole and floating-point numbers'),
    'objects by state': (array(of=kind(state=(3, '|', None, None, None, -1, -1, 63))), 'plain numbers'),
    'a field': (array(of=kind(state=(3, '<', None, ('a',), ('a',), -1, -1, 0))), 'without fields'),
    'a size of its own': (array(of=kind(state=(3, '<', None, None, None, 1 << 30, 1, 0))), 'plain numbers'),
    'an order that is none': (array(of=kind(state=(3, '?', None, None, None, -1, -1, 0))), 'an order of bytes'),
    'a code with an order': (kind('>f4'), 'whole and floating-point numbers'),
    'a type twice': (array(of=kind() + plain((3, '<', None, None, None, -1, -1, 0)) + b'b'), 'state twice'),
    'an array twice': (array() + b'(' + plain(1) + plain((2,)) + kind() + b'\x89' + DATA + b'tb', 'state twice'),
    'an array without numbers': (ARRAY, 'dicts of arrays'),
    'another class of array': (ARRAY.replace(b'cnumpy\nndarray', b'cnumpy\nmatrix'), "'numpy.matrix' is not among"),
    'begins full': (ARRAY.replace(plain((0,)), plain((1 << 40,))), 'begins as an empty one'),
    'a version to come': (array(version=2), 'an array has a version'),
    'state of a dict': (b'}}b', 'takes no state'),
    'a scalar without bytes': (call(name('numpy.core.multiarray', 'scalar'), kind()), 'a type and bytes'),
    'a scalar that is too long': (call(name('numpy.core.multiarray', 'scalar'), kind(), DATA), 'takes 4 bytes'),
    'a tensor of torch': (name('torch._utils', '_rebuild_tensor_v2'), 'is not among the names'),
    'a command': (call(name('os', 'system'), plain('touch ran')), "'os.system' is not among the names"),
    'memory of its own': (call(name('numpy', 'fromfile'), plain('/etc/passwd')), 'is not among the names'),
    'a name alone': (name('numpy', 'ndarray'), 'dicts of arrays'),
    'a dict in itself': (b'}\x94X\x01\0\0\0ah\0s', 'nested 16 deep'),
    'dicts that grow': (BOMB + b'h\x73', 'hold 20000 values'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_arrays_are_refused(case, tmp_path):
    value, words = HOSTILE[case]
    path = written(tmp_path / 'x', dict_of(w=value))
    with harmless(path), pytest.raises(UnsafeCheckpointError, match=words) as error:
        pickled_arrays.read(path)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize('name', ['a' * 201, 'a/' * 101])
def test_long_names_are_refused(name, tmp_path):
    with pytest.raises(UnsafeCheckpointError, match='at most 200 letters'):
        pickled_arrays.read(written(tmp_path / 'x', dict_of(**{name: array()})))


def test_a_path_that_two_arrays_have_is_refused(tmp_path):
    one, other = dict_of(**{'b/c': array()}), dict_of(c=array())
    with pytest.raises(UnsafeCheckpointError, match="'a/b/c' comes twice"):
        pickled_arrays.read(written(tmp_path / 'x', dict_of(a=one, **{'a/b': other})))


def test_a_file_that_is_cut_anywhere_or_goes_on_is_refused(tmp_path):
    whole = pickle.dumps({'a': np.arange(5.0), 'b': np.float32(1)}, 4)
    path = tmp_path / 'x'
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UnsafeCheckpointError):
            pickled_arrays.read(path)
    path.write_bytes(whole + b'.')
    with pytest.raises(UnsafeCheckpointError, match='1 bytes follow the pickle'):
        pickled_arrays.read(path)


def test_changed_bytes_give_arrays_or_are_refused(tmp_path):
    whole = bytearray(pickle.dumps({'a': {'b': np.arange(5.0)}, 'c': np.float32(1)}, 4))
    path, rng = tmp_path / 'x', np.random.default_rng(0)
    for at in range(2, len(whole)):
        changed = bytearray(whole)
        changed[at] = rng.integers(256)
        path.write_bytes(changed)
        try:
            found = pickled_arrays.read(path)
        except UnsafeCheckpointError:
            continue
        assert all(leaf.dtype.kind in 'fiu' and leaf.nbytes <= len(whole) for leaf in found.values())
