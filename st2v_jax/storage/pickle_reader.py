"""Files that torch.save wrote, as arrays that stay on disk until they are asked for; nothing in a file is executed.

Two containers exist: an uncompressed zip archive with one pickle and one record per storage, and, before torch 1.6,
pickles one after the other with the storages behind them. Either way a tensor is a stretch of the file.
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from st2v_jax.storage.first_bytes import UNPACK
from st2v_jax.storage.pickle_machine import Machine, Tensor, show
from st2v_jax.storage.untrusted import CUT, UnsafeCheckpointError

# The keys that programs put weights under, besides what else they save
NESTS = (
    'state_dict',
    'model_state_dict',
    'model',
    'module',
    'ema',
    'ema_state_dict',
    'ema_model',
    'params',
    'params_ema',
)
DEEPEST = 3  # of such keys one under the other: a hostile dict may hold itself
LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
# What zipfile raises for bytes that are not an archive.
NOT_AN_ARCHIVE = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, OSError, struct.error)
ENCRYPTED_OR_PATCHED = 0x0001 | 0x0040 | 0x2000 | 0x0020


class Place(NamedTuple):
    """Where bytes are in a file, and their CRC-32 if the container has one."""

    start: int
    size: int
    checksum: int | None = None


class PickledTensors(Mapping[str, np.ndarray]):
    """name -> array of a file that torch.save wrote: a dict of tensors, alone or under the key 'state_dict'.

    Opening reads the names and checks every storage's place. An array is a read-only view of the file, mapped into
    memory: it has the tensor's strides, shares memory with tensors of the same storage, and costs memory only for the
    parts that are read. The checksum of a zip record is verified when the first of its tensors is asked for. Do not
    change the file while its arrays are in use.

    Raises:
      UnsafeCheckpointError: (a ValueError) for a file that is cut short or altered, or holds anything but tensors.
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)
        self._checked = set()
        try:
            with open(file, 'rb') as stream:
                if not stream.seek(0, 2):
                    raise UnsafeCheckpointError('the file is empty')
                self._data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                read = _read_zip if self._data[:4] == b'PK\x03\x04' else _read_legacy
                value, self._places = read(self._data, stream)
            self._tensors = _tensors(value)
        except UnsafeCheckpointError as error:
            raise UnsafeCheckpointError(f'{file}: {error}') from None

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        storage = tensor.storage
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, storage.dtype)
        place = self._places[storage.key]
        self._check(storage.key, place)
        row = np.frombuffer(self._data, storage.dtype, storage.count, place.start)[tensor.offset :]
        # torch allows any stride for an axis of one element, numpy only what fits.
        steps = [stride * storage.dtype.itemsize if n > 1 else 0 for n, stride in zip(tensor.shape, tensor.strides)]
        return np.lib.stride_tricks.as_strided(row, tensor.shape, steps, writeable=False)

    def forget(self) -> None:
        """Removes the pages that were read from this process; the system may keep them in its cache."""
        if hasattr(mmap, 'MADV_DONTNEED'):
            self._data.madvise(mmap.MADV_DONTNEED)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _check(self, key, place):
        if place.checksum is None or key in self._checked:
            return
        with memoryview(self._data) as whole, whole[place.start : place.start + place.size] as part:
            found = zlib.crc32(part)
        if found != place.checksum:
            raise UnsafeCheckpointError(
                f'{self.file}: storage {show(key)} was written with checksum {place.checksum:08x} '
                f'and now has {found:08x}'
            )
        self._checked.add(key)
        self.forget()


def _tensors(value):
    """{name: Tensor} of what the pickle holds, under NESTS or not."""
    if isinstance(value, dict) and isinstance(value.get('state_dict'), dict):
        value = value['state_dict']
    for depth in range(DEEPEST, 0, -1):
        nests = [name for name in NESTS if isinstance(value, dict) and _holds_tensors(value.get(name), depth - 1)]
        if len(nests) > 1:
            raise UnsafeCheckpointError(
                f'the file holds several sets of weights, {", ".join(nests)}: save the one to use by itself'
            )
        value = value[nests[0]] if nests else value
    if not isinstance(value, dict):
        raise UnsafeCheckpointError(f'a checkpoint is a dict of tensors, got {show(value)}')
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UnsafeCheckpointError(
                f"a checkpoint maps names to tensors, alone or under 'state_dict'; got {show(name)}: {show(tensor)}"
            )
    return value


def _holds_tensors(value, depth):
    """Whether this is a dict of tensors, or has one under NESTS, at most `depth` further down."""
    if not isinstance(value, dict) or not value:
        return False
    if all(isinstance(one, Tensor) for one in value.values()):
        return True
    return depth > 0 and any(_holds_tensors(value.get(name), depth - 1) for name in NESTS)


def _read_zip(data, stream):
    """(value of the pickle, {storage key: Place})."""
    records = _records(data, stream)
    roots = {name.partition('/')[0] for name in records}
    root = next(iter(roots))
    if len(roots) != 1 or f'{root}/data.pkl' not in records:
        found = ', '.join(map(show, sorted(records)[:3]))
        raise UnsafeCheckpointError(f'the archive is one folder with data.pkl in it, got {found}, ...')
    order = records.get(f'{root}/byteorder')
    if order and data[order.start : order.start + min(order.size, 16)] != b'little':
        raise UnsafeCheckpointError('numbers must be little-endian, and this file says they are not')
    start, size, checksum = records[f'{root}/data.pkl']
    machine = Machine(data, start, start + size)
    # The machine takes no more than its limit, so neither does the checksum.
    if zlib.crc32(data[start : machine.end]) != checksum:
        raise UnsafeCheckpointError('data.pkl does not have the checksum that it was written with, or is too large')
    value = machine.run()
    if machine.at != start + size:
        raise UnsafeCheckpointError(f'{start + size - machine.at} bytes follow the pickle in data.pkl')
    places = {}
    for key, storage in machine.storages.items():
        place = records.get(f'{root}/data/{key}')
        if place is None or place.size != storage.size:
            found = 'no record' if place is None else f'{place.size} bytes'
            raise UnsafeCheckpointError(f'storage {show(key)} takes {storage.size} bytes, the archive has {found}')
        places[key] = place
    return value, places


def _records(data, stream):
    """{name: Place} of a zip archive's records, which are stored uncompressed, inside the file and without overlap."""
    try:
        archive = zipfile.ZipFile(stream)
    except NOT_AN_ARCHIVE as error:
        raise UnsafeCheckpointError(f'not a whole zip archive ({error}): {CUT}') from None
    if archive.filelist and not any(info.filename.endswith('/data.pkl') for info in archive.filelist):
        held = ', '.join(show(info.filename) for info in archive.filelist[:3])
        raise UnsafeCheckpointError(f'a zip archive that torch.save did not write, with {held}: {UNPACK}')
    # zipfile searches for the end record from the back, and accepts bytes after it and before the archive.
    if data[-22:-18] != b'PK\x05\x06' or data[-2:] != b'\0\0' or not archive.filelist:
        raise UnsafeCheckpointError('the archive holds records and ends after them, without a comment')
    if min(info.header_offset for info in archive.filelist) != 0:
        raise UnsafeCheckpointError('the first record must begin where the file begins')
    records, free = {}, 0
    for info in sorted(archive.filelist, key=lambda info: info.header_offset):
        name = info.orig_filename
        parts = name.split('/')
        if name != info.filename or '\\' in name or len(parts) < 2 or {'', '.', '..'} & {*parts}:
            raise UnsafeCheckpointError(f'records are named folder/name, got {show(name)}')
        if name in records:
            raise UnsafeCheckpointError(f'two records are named {show(name)}')
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & ENCRYPTED_OR_PATCHED:
            raise UnsafeCheckpointError(f'{show(name)} is compressed or encrypted, records are stored as they are')
        if info.file_size != info.compress_size:
            raise UnsafeCheckpointError(f'{show(name)} of {info.file_size} bytes is stored in {info.compress_size}')
        start = _after_header(data, info)
        if info.header_offset < free or start + info.file_size > archive.start_dir:
            raise UnsafeCheckpointError(f'{show(name)} reaches over another record or past the end')
        free = start + info.file_size
        records[name] = Place(start, info.file_size, info.CRC)
    return records


def _after_header(data, info):
    """Where a record's bytes begin. A header before them repeats its name, which must be the same."""
    at = info.header_offset
    header = data[at : at + 30] if at >= 0 else b''
    if len(header) < 30 or header[:4] != b'PK\x03\x04':
        raise UnsafeCheckpointError(f'{show(info.orig_filename)} has no header where the archive says it begins')
    flags, method, name_size, extra_size = struct.unpack('<2xHH16xHH', header[4:])
    name = info.orig_filename.encode('utf-8' if info.flag_bits & 0x800 else 'cp437')
    if flags & ENCRYPTED_OR_PATCHED or method != zipfile.ZIP_STORED or data[at + 30 : at + 30 + name_size] != name:
        raise UnsafeCheckpointError(f'{show(info.orig_filename)} is another record in its own header')
    return at + 30 + name_size + extra_size


def _read_legacy(data, stream):
    """(value of the pickle, {storage key: Place}).

    Five pickles: magic number, version, byte order, value, keys; then for each key a count and the numbers.
    """
    at = 0

    def following():
        nonlocal at
        machine = Machine(data, at, len(data))
        value, at = machine.run(), machine.at
        return value, machine.storages

    magic, _ = following() if data[:1] == b'\x80' else (None, None)
    if type(magic) is not int or magic != LEGACY_MAGIC:
        raise UnsafeCheckpointError('neither a zip archive nor a pickle that starts with the magic number of torch')
    version, _ = following()
    system, _ = following()
    if type(version) is not int or version != LEGACY_VERSION:
        raise UnsafeCheckpointError(f'the version of this format is {LEGACY_VERSION}, got {show(version)}')
    if type(system) is not dict or system.get('little_endian') is not True:
        raise UnsafeCheckpointError('numbers must be little-endian, and this file does not say that they are')
    value, storages = following()
    keys, _ = following()
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise UnsafeCheckpointError(f'the keys of the storages are a list of text, got {show(keys)}')
    if len(keys) != len(storages) or {*keys} != {*storages}:
        raise UnsafeCheckpointError(
            f'{len(keys)} storages follow, the tensors need {len(storages)}: they must be the same, each once'
        )
    places = {}
    for key in keys:
        count = int.from_bytes(data[at : at + 8], 'little', signed=True)
        storage = storages[key]
        if count != storage.count or at + 8 + storage.size > len(data):
            cut = f': {CUT}' if at + 8 + storage.size > len(data) else ''
            raise UnsafeCheckpointError(
                f'storage {show(key)} has {storage.count} numbers; '
                f'the file says {count} and has {len(data) - at} bytes{cut}'
            )
        places[key] = Place(at + 8, storage.size)
        at += 8 + storage.size
    if at != len(data):
        raise UnsafeCheckpointError(f'{len(data) - at} bytes follow the last storage')
    return value, places
