"""Tensors in any container, alone or spread over several files by an index, which is checked."""

import json

import numpy as np
import pytest
import torch_files as files

from st2v_jax.storage.containers import Sharded, read
from st2v_jax.storage.untrusted import UnsafeCheckpointError


def arrays():
    return {kind: np.arange(6).reshape(2, 3).astype(dtype) for kind, dtype in files.KINDS.values()}


def same(tensors, expected):
    assert {*tensors} == {*expected} and len(tensors) == len(expected)
    for name, array in expected.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array, name)


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
        with pytest.raises(UnsafeCheckpointError, match='tensors are not in the files that the index names'):
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
