"""safetensors files, alone or spread over several, are read exactly and lazily; bad ones are refused."""

import json
import struct

import numpy as np
import pytest
import torch_files as files
from safetensors.numpy import save_file

from st2v_jax.storage.containers import Sharded, read
from st2v_jax.storage.pickle_machine import UnsafeCheckpointError


def arrays():
    rng = np.random.default_rng(0)
    made = {kind: rng.integers(0, 2, (2, 3)).astype(dtype) for kind, dtype in files.KINDS.values()}
    return made | {'scalar': np.array(1.5, np.float32), 'empty': np.zeros((0, 4), np.float16)}


def same(tensors, expected):
    assert {*tensors} == {*expected} and len(tensors) == len(expected)
    for name, array in expected.items():
        assert tensors[name].dtype == array.dtype and tensors[name].shape == array.shape, name
        np.testing.assert_array_equal(tensors[name], array, name)


def test_every_type_of_our_writer(tmp_path):
    same(read(files.safetensors(tmp_path / 'x.safetensors', arrays())), arrays())


def test_files_of_the_safetensors_package(tmp_path):
    native = {name: array for name, array in arrays().items() if name != 'BF16'}
    save_file(native, tmp_path / 'x.safetensors', {'format': 'np'})
    tensors = read(tmp_path / 'x.safetensors')
    same(tensors, native)
    assert not tensors['F32'].flags.writeable and not tensors['F32'].flags.owndata


@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
def test_tensors_spread_over_files(kind, tmp_path):
    names = {f'model-0000{n}-of-00002.{kind}': [*arrays()][n - 1 :: 2] for n in (1, 2)}
    for file, held in names.items():
        part = {name: arrays()[name] for name in held}
        if kind == 'safetensors':
            files.safetensors(tmp_path / file, part)
        else:
            files.checkpoint('zip', tmp_path / file, part)
    index = tmp_path / f'model.{kind}.index.json'
    places = {name: file for file, held in names.items() for name in held}
    index.write_text(json.dumps({'metadata': {}, 'weight_map': places}))
    same(read(index), arrays())
    first, second = names
    for wrong in ({**places, 'F64': second}, {**places, 'new': first}, {k: v for k, v in places.items() if k != 'F64'}):
        index.write_text(json.dumps({'weight_map': wrong}))
        with pytest.raises(UnsafeCheckpointError, match='tensors are not where the index has them'):
            Sharded(index)


@pytest.mark.parametrize(
    'text',
    [
        *('', '[]', '{', '{}', '{"weight_map": []}', '{"weight_map": {"a": 1}}', '[' * 100_000),
        *(
            json.dumps({'weight_map': {'a': name}})
            for name in ('', '..', '../x', '/etc/passwd', 'a\\b', 'a\0', 'x.index.json')
        ),
        '{"weight_map": {"a": "x", "a": "y"}}',
    ],
)
def test_hostile_index_is_refused(text, tmp_path):
    index = tmp_path / 'x.index.json'
    index.write_text(text)
    with pytest.raises(UnsafeCheckpointError, match='x.index.json'):
        read(index)


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
