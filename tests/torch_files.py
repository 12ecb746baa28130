"""Files of torch.save and safetensors, written byte by byte to test readers without torch, and with hostile files."""

import io
import json
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np

KINDS = {
    'DoubleStorage': ('F64', np.float64),
    'FloatStorage': ('F32', np.float32),
    'HalfStorage': ('F16', np.float16),
    'BFloat16Storage': ('BF16', jnp.bfloat16),
    'LongStorage': ('I64', np.int64),
    'IntStorage': ('I32', np.int32),
    'ShortStorage': ('I16', np.int16),
    'CharStorage': ('I8', np.int8),
    'ByteStorage': ('U8', np.uint8),
    'BoolStorage': ('BOOL', np.bool_),
}
CONTAINERS = ('zip', 'legacy')


def plain(value):
    """Opcodes of a number, a text or a tuple of them."""
    if isinstance(value, tuple):
        return b'(' + b''.join(map(plain, value)) + b't'
    if isinstance(value, str):
        return b'X' + struct.pack('<I', len(value.encode())) + value.encode()
    if isinstance(value, bool) or value is None:
        return {True: b'\x88', False: b'\x89', None: b'N'}[value]
    return b'\x8a\x0a' + value.to_bytes(10, 'little', signed=True)


def name(module, attribute):
    return f'c{module}\n{attribute}\n'.encode()


def call(function, *args):
    return function + b'(' + b''.join(args) + b'tR'


def dict_of(**items):
    return b'}(' + b''.join(plain(key) + value for key, value in items.items()) + b'u'


def storage(container, key='0', kind='FloatStorage', count=6, device='cpu', end=None):
    end = (b'N' if container == 'legacy' else b'') if end is None else end
    return b'(' + plain('storage') + name('torch', kind) + plain(key) + plain(device) + plain(count) + end + b'tQ'


def tensor(stored, shape=(2, 3), strides=(3, 1), offset=0, end=b'\x89}'):
    rebuild = name('torch._utils', '_rebuild_tensor_v2')
    return call(rebuild, stored, plain(offset), plain(shape), plain(strides), end)


def program(value):
    return b'\x80\x02' + value + b'.'


def packed(container, pickled, storages, path):
    """Writes a file around a pickle. storages is {key: array}; a zip archive asks for one array at a time."""
    if container == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            for record, data in _records(pickled, storages):
                archive.writestr(f'archive/{record}', data)
    else:
        path.write_bytes(legacy(pickled, storages))
    return path


def _records(pickled, storages):
    yield from (('data.pkl', pickled), ('byteorder', b'little'), ('version', b'3\n'))
    for key, array in storages.items():
        yield f'data/{key}', memoryview(np.ravel(array).view(np.uint8))


def records_of(pickled, storages):
    return {record: bytes(data) for record, data in _records(pickled, storages)}


def zipped(pickled, storages, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', method) as archive:
        for record, data in records_of(pickled, storages).items():
            archive.writestr(f'archive/{record}', data)
    return stream.getvalue()


def legacy(pickled, storages, magic=0x1950A86A20F9469CFC6C, version=1001, little_endian=True, keys=None):
    system = {'protocol_version': 1001, 'little_endian': little_endian, 'type_sizes': {'int': 4}}
    parts = [pickle.dumps(value, 2) for value in (magic, version, system)]
    parts += [pickled, pickle.dumps(list(storages) if keys is None else keys, 2)]
    for array in map(np.asarray, storages.values()):
        parts += [struct.pack('<q', array.size), array.tobytes()]
    return b''.join(parts)


def checkpoint(container, path, arrays, wrapped=False):
    """Writes these arrays to a file, each with a storage of its own."""
    kinds = {np.dtype(dtype): kind for kind, (_, dtype) in KINDS.items()}
    storages = {str(n): array for n, array in enumerate(arrays.values())}
    entries = {}
    for key, (called, array) in zip(storages, arrays.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        entries[called] = tensor(storage(container, key, kinds[array.dtype], array.size), array.shape, strides)
    value = dict_of(**entries)
    return packed(container, program(dict_of(state_dict=value, epoch=plain(3)) if wrapped else value), storages, path)


def safetensors(path, arrays, header=None):
    """Writes these arrays to a file, or their numbers under another header."""
    kinds = {np.dtype(dtype): kind for kind, dtype in KINDS.values()}
    listed, at = {}, 0
    for called, array in arrays.items():
        offsets = [at, at := at + array.nbytes]
        listed[called] = {'dtype': kinds[array.dtype], 'shape': list(array.shape), 'data_offsets': offsets}
    text = json.dumps(listed).encode() if header is None else header
    with open(path, 'wb') as stream:
        stream.write(struct.pack('<Q', len(text)) + text)
        for array in arrays.values():
            stream.write(array.tobytes())
    return path
