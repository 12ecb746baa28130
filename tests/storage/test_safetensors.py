"""safetensors files are written and read exactly and lazily; bad ones are refused."""

import json
import struct
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
import torch_files as files
from safetensors.numpy import load_file, save_file

from st2v_jax.storage.safetensors import SafeTensors as read
from st2v_jax.storage.safetensors import write
from st2v_jax.storage.untrusted import UnsafeCheckpointError


def arrays():
    rng = np.random.default_rng(0)
    made = {kind: rng.integers(0, 2, (2, 3)).astype(dtype) for kind, dtype in files.KINDS.values()}
    return made | {'scalar': np.array(1.5, np.float32), 'empty': np.zeros((0, 4), np.float16)}


def same(tensors, expected):
    assert {*tensors} == {*expected} and len(tensors) == len(expected)
    for name, array in expected.items():
        assert tensors[name].dtype == array.dtype and tensors[name].shape == array.shape, name
        np.testing.assert_array_equal(tensors[name], array, name)


def test_every_type_is_read(tmp_path):
    same(read(files.safetensors(tmp_path / 'x.safetensors', arrays())), arrays())


def test_files_of_the_safetensors_package(tmp_path):
    native = {name: array for name, array in arrays().items() if name != 'BF16'}
    save_file(native, tmp_path / 'x.safetensors', {'format': 'np'})
    tensors = read(tmp_path / 'x.safetensors')
    same(tensors, native)
    assert not tensors['F32'].flags.writeable and not tensors['F32'].flags.owndata


LAID_OUT = {'turned': np.float32([[0, 1, 2], [3, 4, 5]]).T, 'strided': np.arange(8)[::2], 'scalar': np.ones(())}


def test_what_is_written_comes_back_and_the_safetensors_package_reads_it(tmp_path):
    path, sizes = tmp_path / 'x.safetensors', []
    write(path, arrays() | LAID_OUT, notes={'from': 'a "test"'}, on_array=sizes.append)
    same(read(path), arrays() | LAID_OUT)
    assert read(path).metadata == {'from': 'a "test"'}
    assert sizes == [array.size for array in (arrays() | LAID_OUT).values()]
    write(path, LAID_OUT, np.float16)
    same(load_file(path), {name: array.astype(np.float16) for name, array in LAID_OUT.items()})
    write(path, arrays(), jnp.bfloat16)
    assert {array.dtype for array in read(path).values()} == {np.dtype(jnp.bfloat16)}


def test_a_number_that_does_not_fit_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / 'x.safetensors'
    write(path, {'a': np.ones(3)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match='b: a number is too large for float16'):
        write(path, {'a': np.ones(3), 'b': np.float32([1e6, np.nan])[:1]}, np.float16)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]
    write(path, {'b': np.float32([np.inf])}, np.float16)  # it was not a number before
    same(read(path), {'b': np.float16([np.inf])})


def test_arrays_are_asked_for_one_at_a_time(tmp_path):
    """Of 64 MB of arrays that are made when they are asked for, no two exist at the same time."""

    class Made(dict):
        def __getitem__(self, name):
            return np.full(1 << 21, float(name), np.float32)

    made = Made.fromkeys('01234567')
    tracemalloc.start()
    write(tmp_path / 'x.safetensors', made, np.float16)
    assert tracemalloc.get_traced_memory()[1] < 2.5 * 2**23
    tracemalloc.stop()
    same(read(tmp_path / 'x.safetensors'), {name: made[name].astype(np.float16) for name in made})


ENTRY = {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 24]}


@pytest.mark.parametrize(
    'header',
    [
        *('', '[]', 'null', '{', '[' * 100_000, '{"a": ' * 50_000, '{"a": 1}', '{"a": NaN}', '\xff'),
        json.dumps({'a': ENTRY})[:-1] + ', "a": {}}',
        '{"a": ' + json.dumps(ENTRY).replace('24', '9' * 5000) + '}',
        *(
            json.dumps({'a': ENTRY | change})
            for change in (
                {'dtype': 'F8'},
                {'dtype': ['F32']},
                {'dtype': 'I64'},
                {'shape': [2, -3]},
                {'shape': [2, True]},
                {'shape': '23'},
                {'shape': [2, 2]},
                {'shape': [1 << 60]},
                {'shape': [1 << 40, 1 << 40, 0], 'data_offsets': [0, 0]},
                {'shape': [1] * 64 + [6]},
                {'data_offsets': [24, 0]},
                {'data_offsets': [1, 25]},
                {'data_offsets': [0, 24, 24]},
                {'data_offsets': [0.0, 24.0]},
                {'more': 1},
            )
        ),
        json.dumps({'a': ENTRY, 'b': ENTRY}),
        json.dumps({'a': ENTRY, 'b': ENTRY | {'data_offsets': [12, 36]}}),
        json.dumps({'a': ENTRY | {'shape': [5], 'data_offsets': [0, 20]}}),
    ],
)
def test_hostile_header_is_refused(header, tmp_path):
    good = {'a': np.ones((2, 3), np.float32)}
    path = files.safetensors(tmp_path / 'x.safetensors', good, header.encode('latin-1'))
    with pytest.raises(UnsafeCheckpointError, match=str(path)):
        read(path)


def test_hostile_lengths_and_cut_files_are_refused(tmp_path):
    path = files.safetensors(tmp_path / 'x.safetensors', {'a': np.ones((2, 3), np.float32)})
    whole = path.read_bytes()
    lengths = [struct.pack('<Q', n) + whole[8:] for n in (0, 1, 200, 1 << 40, (1 << 64) - 1)]
    for data in (*lengths, whole + b'x', *(whole[:size] for size in range(len(whole)))):
        path.write_bytes(data)
        with pytest.raises(UnsafeCheckpointError, match=str(path)):
            read(path)


def test_random_mutation_gives_the_error_or_whole_arrays(tmp_path):
    good = {'a': np.ones((2, 3), np.float32), 'b': np.zeros(5, np.int8)}
    path = files.safetensors(tmp_path / 'x.safetensors', good)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(500):
        data = bytearray(whole)
        for at in random.integers(0, len(data), random.integers(1, 4)):
            data[at] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            tensors = read(path)
        except UnsafeCheckpointError:
            continue
        assert sum(tensors[name].nbytes for name in tensors) == 29
