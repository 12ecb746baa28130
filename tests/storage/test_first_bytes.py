"""A file of weights is told by its first bytes, and what lies in its place is named with what helps."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest
import torch_files as files

from st2v_jax.storage.containers import read
from st2v_jax.storage.pickle_reader import NESTS
from st2v_jax.storage.untrusted import UnsafeCheckpointError

ARRAYS = {'a': np.arange(6, dtype=np.float32).reshape(2, 3)}


def tar():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('unet.safetensors'), io.BytesIO())
    return stream.getvalue()


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        for name in names:
            archive.writestr(name, b'x')
    return stream.getvalue()


def npz():
    stream = io.BytesIO()
    np.savez(stream, **ARRAYS)
    return stream.getvalue()


def npy():
    stream = io.BytesIO()
    np.save(stream, ARRAYS['a'])
    return stream.getvalue()


STAND_INS = {
    'a git-lfs pointer': (b'version https://git-lfs.github.com/spec/v1\noid sha256:aa\n', 'git-lfs pointer.*lfs pull'),
    'a web page': (b'\n <!DOCTYPE html><html>', 'is a web page, not the file itself: download it again'),
    'a page in upper case': (b'<HTML><HEAD>', 'is a web page'),
    'a page in latin-1': ('<html><title>Zugriff für '.encode('latin-1'), 'is a web page'),
    'an error of a bucket': (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', 'is an XML reply of a server'),
    'a reply in JSON': (b'{"error": "Repository not found"}', 'is text, not the file itself .*Repository not found'),
    'a reply in words': (b'Entry not found', r"is text, not the file itself \('Entry not found'\): download it again"),
    'a link that became text': (b'../../blobs/0123abcd', r'is text, .*blobs/0123abcd'),
    'blank': (b'\n \n', 'is text'),
    'nothing': (b'', 'is empty: download it again'),
    'zeros': (bytes(4096), 'begins with nothing but zeros, as a download that has not finished'),
    'gzip': (gzip.compress(b'x'), 'is a gzip archive: unpack it'),
    'bzip2': (bz2.compress(b'x'), 'is a bzip2 archive: unpack it'),
    'xz': (lzma.compress(b'x'), 'is an xz archive: unpack it'),
    'zstd': (b'\x28\xb5\x2f\xfd\x04\0', 'is a zstd archive: unpack it'),
    '7z': (b'7z\xbc\xaf\x27\x1c\0\4', 'is a 7z archive: unpack it'),
    'rar': (b'Rar!\x1a\x07\1\0', 'is a RAR archive: unpack it'),
    'tar': (tar(), 'is a tar archive: unpack it'),
    'a zip of weights': (zipped('model/unet.safetensors'), "torch.save did not write, with 'model/unet.safetensors'"),
    'a flat zip': (zipped('a.bin', 'b.bin'), "torch.save did not write, with 'a.bin', 'b.bin': unpack it"),
    'an empty zip': (zipped(), 'is an empty zip archive'),
    'npz': (npz(), "torch.save did not write, with 'a.npy'"),
    'npy': (npy(), 'is a numpy array, which is not read here: look for the .safetensors'),
    'gguf': (b'GGUF\3\0\0\0\x24\1\0\0\0\0\0\0', 'is a GGUF file of llama.cpp, which is not read here'),
    'hdf5': (b'\x89HDF\r\n\x1a\n\0\0\0\0', 'is an HDF5 file, as of Keras'),
    'onnx': (b'\x08\x07\x12\x07pytorch\x1a\x051.13', 'is a model of ONNX or TensorFlow'),
    'a saved model': (b'\x08\x01\x12\xc3\x99\x01\n', 'is a model of ONNX or TensorFlow'),
    'tflite': (b'\x1c\0\0\0TFL3\x14\0', 'is a model of ONNX or TensorFlow'),
    'msgpack': (b'\x84\xaadown_blocks\x85\xa10', 'is a msgpack file, as of Flax'),
}


@pytest.mark.parametrize('name', ['model.safetensors', 'model.ckpt', 'model.bin', 'model.safetensors.part', 'model'])
@pytest.mark.parametrize('case', STAND_INS)
def test_what_lies_in_the_place_of_weights_is_named(case, name, tmp_path):
    data, told = STAND_INS[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnsafeCheckpointError, match=told) as error:
        read(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name)) and '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['model.safetensors', 'model.ckpt', 'model.pth', 'model.part', 'model'])
@pytest.mark.parametrize('container', ['safetensors', *files.CONTAINERS])
def test_weights_are_read_whatever_they_are_called(container, name, tmp_path):
    if container == 'safetensors':
        files.safetensors(tmp_path / name, ARRAYS)
    else:
        files.checkpoint(container, tmp_path / name, ARRAYS)
    np.testing.assert_array_equal(read(tmp_path / name)['a'], ARRAYS['a'])


@pytest.mark.parametrize('length', range(33, 70))
def test_a_header_of_any_length_is_one_of_safetensors(length, tmp_path):
    """The first byte may be that of any other kind of file, such as the < of a web page."""
    files.safetensors(tmp_path / 'a', {'a' * (length - 12): np.zeros(2, np.uint8)})
    assert len(read(tmp_path / 'a')) == 1


@pytest.mark.parametrize('container', ['safetensors', 'zip', 'legacy'])
def test_a_download_that_ended_early_is_cut_short(container, tmp_path):
    path = tmp_path / 'model.safetensors'
    arrays = {'a': np.arange(1000, dtype=np.float32)}
    if container == 'safetensors':
        files.safetensors(path, arrays)
    else:
        files.checkpoint(container, path, arrays)
    whole = path.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(
            UnsafeCheckpointError, match='cut short, as when a download ends early: fetch or convert it'
        ):
            read(path)


def nested(path, keys):
    """A file of torch.save with the arrays under one key in the other."""
    array = ARRAYS['a']
    value = files.dict_of(a=files.tensor(files.storage('zip', '0', 'FloatStorage', array.size), array.shape, (3, 1)))
    for key in reversed(keys):
        value = files.dict_of(**{key: value, 'epoch': files.plain(3)})
    return files.packed('zip', files.program(value), {'0': array}, path)


@pytest.mark.parametrize('keys', [*((name,) for name in NESTS), ('model', 'state_dict'), ('ema', 'module', 'params')])
def test_weights_are_found_under_the_keys_of_training_programs(keys, tmp_path):
    tensors = read(nested(tmp_path / 'a.pt', keys))
    assert list(tensors) == ['a']
    np.testing.assert_array_equal(tensors['a'], ARRAYS['a'])


def test_of_several_sets_of_weights_none_is_guessed(tmp_path):
    storage = files.storage('zip', '0', 'FloatStorage', 6)
    one = files.dict_of(a=files.tensor(storage, (2, 3), (3, 1)))
    files.packed('zip', files.program(files.dict_of(model=one, ema=one)), {'0': ARRAYS['a']}, tmp_path / 'a.pt')
    with pytest.raises(UnsafeCheckpointError, match='holds several sets of weights, model, ema: save the one to use'):
        read(tmp_path / 'a.pt')


def test_a_dict_that_holds_itself_comes_to_an_end(tmp_path):
    # {'model': the dict itself}, by the memo
    files.packed('zip', b'\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.', {}, tmp_path / 'a.pt')
    with pytest.raises(UnsafeCheckpointError, match="got 'model': dict of 1"):
        read(tmp_path / 'a.pt')
