"""Files of torch.save are read exactly and lazily, and nothing in them is run."""

import tracemalloc

import numpy as np
import pytest
import torch_files as files

from st2v_jax.storage.pickle_reader import PickledTensors
from st2v_jax.storage.untrusted import UnsafeCheckpointError


def arrays():
    """An array of every type that a storage can have, a scalar and an empty array."""
    rng = np.random.default_rng(0)
    made = {kind: rng.integers(0, 2 if 'Bool' in kind else 100, (2, 3)) for kind in files.KINDS}
    made = {kind: array.astype(files.KINDS[kind][1]) for kind, array in made.items()}
    return made | {'scalar': np.array(1.5, np.float32), 'empty': np.zeros((0, 4), np.float16)}


def same(tensors, expected):
    assert list(tensors) == list(expected) and len(tensors) == len(expected)
    for name, array in expected.items():
        assert tensors[name].dtype == array.dtype and tensors[name].shape == array.shape, name
        np.testing.assert_array_equal(tensors[name], array, name)


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('container', files.CONTAINERS)
def test_every_type_in_every_container(container, wrapped, tmp_path):
    same(PickledTensors(files.checkpoint(container, tmp_path / 'x.pth', arrays(), wrapped)), arrays())


@pytest.mark.parametrize('container', files.CONTAINERS)
def test_views_of_one_storage_share_memory(container, tmp_path):
    stored = files.storage(container)
    views = {
        'whole': ((6,), (1,), 0),
        'turned': ((3, 2), (1, 3), 0),
        'odd': ((3,), (2,), 1),
        'last': ((1, 1), (7**12, 1), 5),
    }
    entries = {name: files.tensor(stored, *view) for name, view in views.items()}
    data = np.arange(6, dtype=np.float32)
    tensors = PickledTensors(
        files.packed(container, files.program(files.dict_of(**entries)), {'0': data}, tmp_path / 'x')
    )
    turned = np.ascontiguousarray(data.reshape(2, 3).T)
    same(tensors, {'whole': data, 'turned': turned, 'odd': data[1::2], 'last': data[5:].reshape(1, 1)})
    assert np.shares_memory(tensors['whole'], tensors['odd'])
    assert not tensors['turned'].flags.writeable


@pytest.mark.parametrize('container', files.CONTAINERS)
def test_parameters_metadata_and_notes_beside_the_weights(container, tmp_path):
    parameter = files.call(
        files.name('torch._utils', '_rebuild_parameter'),
        files.tensor(files.storage(container)),
        b'\x88',
        files.call(files.name('collections', 'OrderedDict')),
    )
    versions = files.dict_of(_metadata=files.call(files.name('collections', 'OrderedDict')))
    weights = (
        files.call(files.name('collections', 'OrderedDict')) + files.plain('w') + parameter + b's' + versions + b'b'
    )
    kind = files.call(files.name('numpy', 'dtype'), files.plain('f8'), b'\x89', b'\x88')
    kind += files.plain((3, '<', None, None, None, -1, -1, 0)) + b'b'
    text = files.call(files.name('_codecs', 'encode'), files.plain('12345678'), files.plain('latin1'))
    best = files.call(files.name('numpy.core.multiarray', 'scalar'), kind, text)
    callback = files.name('pytorch_lightning.callbacks.model_checkpoint', 'ModelCheckpoint')
    notes = b'}(' + callback + files.dict_of(best=best) + b'u'
    pickled = files.program(files.dict_of(callbacks=notes, state_dict=weights))
    data = np.arange(6, dtype=np.float32)
    tensors = PickledTensors(files.packed(container, pickled, {'0': data}, tmp_path / 'x.ckpt'))
    same(tensors, {'w': data.reshape(2, 3)})


@pytest.mark.parametrize('container', files.CONTAINERS)
def test_dicts_of_pairs_and_tensors_without_hooks_as_python_2_wrote_them(container, tmp_path):
    ordered = files.name('collections', 'OrderedDict')
    pair = files.plain('w') + files.tensor(files.storage(container), end=b'\x89N')
    for pairs in (b'](' + pair + b'\x86e', b'](](' + pair + b'ee'):  # as a tuple, as a list
        pickled = files.program(ordered + pairs + b'\x85R')
        data = np.arange(6, dtype=np.float32)
        same(PickledTensors(files.packed(container, pickled, {'0': data}, tmp_path / 'x')), {'w': data.reshape(2, 3)})


@pytest.mark.parametrize('container', files.CONTAINERS)
def test_arrays_stay_on_disk(container, tmp_path):
    path = files.checkpoint(container, tmp_path / 'x', {f'{n}': np.full(2**21, n, np.float32) for n in range(4)})
    tracemalloc.start()
    try:
        tensors = PickledTensors(path)
        assert [tensors[name][-1] for name in tensors] == [0, 1, 2, 3]
        assert tracemalloc.get_traced_memory()[1] < 2**20 < path.stat().st_size / 32
    finally:
        tracemalloc.stop()


def test_an_altered_number_is_noticed_when_it_is_read(tmp_path):
    path = files.checkpoint('zip', tmp_path / 'x', {'a': np.zeros(9, np.float32), 'b': np.full(9, 7, np.float32)})
    path.write_bytes(path.read_bytes().replace(np.float32([7, 7, 7]).tobytes(), np.float32([7, 8, 7]).tobytes()))
    tensors = PickledTensors(path)
    np.testing.assert_array_equal(tensors['a'], np.zeros(9))
    with pytest.raises(UnsafeCheckpointError, match="storage '1' was written with checksum"):
        tensors['b']


@pytest.mark.parametrize('container', files.CONTAINERS)
def test_a_file_cut_short_is_refused_at_any_length(container, tmp_path):
    path = files.checkpoint(container, tmp_path / 'x', {'a': np.ones((2, 3), np.float32)})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UnsafeCheckpointError, match=str(path)):
            PickledTensors(path)


@pytest.mark.parametrize('container', files.CONTAINERS)
def test_a_name_that_is_not_a_tensor_is_reported(container, tmp_path):
    path = files.packed(container, files.program(files.dict_of(epoch=files.plain(3))), {}, tmp_path / 'x')
    with pytest.raises(UnsafeCheckpointError, match="got 'epoch': 3"):
        PickledTensors(path)


@pytest.mark.parity
@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('container', files.CONTAINERS)
def test_files_of_torch_are_read_exactly(container, protocol, tmp_path):
    torch = pytest.importorskip('torch')
    dtypes = ('float64', 'float32', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool')
    random = torch.randint(0, 2, (4, 3, 5))
    state = {dtype: random.to(getattr(torch, dtype)) for dtype in dtypes}
    state |= {f'{dtype}.part': state[dtype].permute(2, 0, 1)[1:4, ::2] for dtype in dtypes}
    state |= {'scalar': torch.tensor(1.5), 'empty': torch.zeros(0, 3), 'parameter': torch.nn.Parameter(torch.ones(2))}
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    for value in (state, {'state_dict': module.state_dict(), 'epoch': 3, 'best': np.float64(0.5)}, module.state_dict()):
        torch.save(value, tmp_path / 'x', pickle_protocol=protocol, _use_new_zipfile_serialization=container == 'zip')
        expected = value.get('state_dict', value)
        tensors = PickledTensors(tmp_path / 'x')
        assert list(tensors) == list(expected)
        for name, tensor in expected.items():
            assert str(tensors[name].dtype) == str(tensor.dtype).removeprefix('torch.'), name
            assert tensors[name].shape == tuple(tensor.shape), name
            np.testing.assert_array_equal(tensors[name].astype(np.float64), tensor.detach().double().numpy(), name)


@pytest.mark.parity
def test_hostile_pickles_of_torch_run_nothing(tmp_path):
    torch = pytest.importorskip('torch')

    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / 'ran'), 'w')

    for container in (True, False):
        torch.save({'w': Payload()}, tmp_path / 'x', _use_new_zipfile_serialization=container)
        with pytest.raises(UnsafeCheckpointError, match='io.open'):
            PickledTensors(tmp_path / 'x')
    assert not (tmp_path / 'ran').exists()
