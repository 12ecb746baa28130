"""safetensors files, read and written one array at a time: a file of any size needs the memory of one array.

The safetensors package is not used, because its numpy functions know bfloat16 only in the newest versions and copy what
they read and write. The format is a length, a JSON header and the numbers.
"""

import json
import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from st2v_jax import stopping
from st2v_jax.storage import buckets
from st2v_jax.storage.atomic import replacing
from st2v_jax.storage.untrusted import CUT, UnsafeCheckpointError, read_json, show

MAX_HEADER = 100_000_000  # the format's own limit
DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        'F64': np.float64,
        'F32': np.float32,
        'F16': np.float16,
        'BF16': jnp.bfloat16,
        'I64': np.int64,
        'I32': np.int32,
        'I16': np.int16,
        'I8': np.int8,
        'U64': np.uint64,
        'U32': np.uint32,
        'U16': np.uint16,
        'U8': np.uint8,
        'BOOL': np.bool_,
    }.items()
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class SafeTensors(Mapping[str, np.ndarray]):
    """name -> array of one safetensors file, a read-only view of the file mapped into memory; a bucket's is fetched.

    Raises:
      UnsafeCheckpointError: (a ValueError) for a file that is cut short or altered: its tensors have to fill it.
    """

    def __init__(self, file: str | Path):
        try:
            self._data = buckets.read(file) if buckets.is_address(file) else _mapped(file)
            size = len(self._data)
            if size < 8:
                raise UnsafeCheckpointError(f'a safetensors file has at least 8 bytes, got {size}')
            length = int.from_bytes(self._data[:8], 'little')
            if length > min(MAX_HEADER, size - 8):
                cut = f': {CUT}' if length <= MAX_HEADER else f' (at most {MAX_HEADER})'
                raise UnsafeCheckpointError(f'a header of {length} bytes in a file of {size}{cut}')
            header = read_json(self._data[8 : 8 + length])
            self.metadata = header.pop('__metadata__', {})  # notes of its writer
            self._start = 8 + length
            self._entries = {name: _entry(name, entry) for name, entry in header.items()}
            _fill_the_file(self._entries, size - self._start)
        except UnsafeCheckpointError as error:
            raise UnsafeCheckpointError(f'{file}: {error}') from None

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, begin, end = self._entries[name]
        if begin == end:
            return np.zeros(shape, dtype)
        return np.frombuffer(self._data, dtype, math.prod(shape), self._start + begin).reshape(shape)

    def forget(self) -> None:
        """Removes the pages that were read from this process; the system may keep them in its cache."""
        if hasattr(self._data, 'madvise') and hasattr(mmap, 'MADV_DONTNEED'):
            self._data.madvise(mmap.MADV_DONTNEED)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def write(
    file: str | Path,
    arrays: Mapping[str, np.ndarray],
    dtype: np.typing.DTypeLike = None,
    *,
    notes: Mapping[str, str] | None = None,
    on_array: Callable[[int], None] | None = None,
) -> None:
    """Writes a file whole or not at all, see `replacing`.

    Args:
      file: its path.
      arrays: name -> array; each is fetched once for its shape and once for its numbers, in the order of the mapping.
      dtype: of the file; None keeps every array's own.
      notes: texts that go into the header.
      on_array: called with the number of elements of every array that is written.

    Raises:
      ValueError: for a finite number that is not finite as `dtype`.
    """
    header, end = {'__metadata__': dict(notes)} if notes else {}, 0
    for name in arrays:
        kept = np.dtype(dtype or arrays[name].dtype)
        begin, end = end, end + arrays[name].size * kept.itemsize
        header[name] = {'dtype': NAMES[kept], 'shape': arrays[name].shape, 'data_offsets': [begin, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)  # so that the numbers are aligned for any type
    with replacing(file) as stream:
        stream.write(len(text).to_bytes(8, 'little') + text)
        for name in arrays:
            stopping.check()
            stream.write(_packed(name, arrays[name], dtype))
            if on_array is not None:
                on_array(arrays[name].size)


def _mapped(file):
    with open(file, 'rb') as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if stream.seek(0, 2) else b''


def _entry(name, entry):
    """(dtype, shape, begin, end) of a tensor, from what the header says of it."""
    if not isinstance(entry, dict) or entry.keys() != {'dtype', 'shape', 'data_offsets'}:
        raise UnsafeCheckpointError(f'{show(name)} has a dtype, a shape and data_offsets, got {show(entry)}')
    kind, shape, offsets = entry['dtype'], entry['shape'], entry['data_offsets']
    if not isinstance(kind, str) or kind not in DTYPES:
        raise UnsafeCheckpointError(f'{show(name)}: the dtypes are {", ".join(DTYPES)}, got {show(kind)}')
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
            raise UnsafeCheckpointError(
                f'{show(name)}: shape and offsets are whole numbers from 0 to 2**48, got {show(numbers)}'
            )
    size = math.prod(shape) * DTYPES[kind].itemsize
    # The other axes of an empty array are bounded too, because numpy multiplies them.
    if len(shape) > 32 or len(offsets) != 2 or offsets[1] - offsets[0] != size or math.prod(filter(None, shape)) >> 48:
        raise UnsafeCheckpointError(f'{show(name)}: {kind} {shape[:32]} takes {size} bytes, got offsets {offsets[:3]}')
    return DTYPES[kind], tuple(shape), *offsets


def _fill_the_file(entries, size):
    """Raises UnsafeCheckpointError unless the tensors fill the file, one after the other."""
    free = 0
    for name, (*_, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != free:
            raise UnsafeCheckpointError(f'{show(name)} begins at byte {begin}, the tensors before it end at {free}')
        free = end
    if free != size:
        cut = f': {CUT}' if free > size else ''
        raise UnsafeCheckpointError(f'the tensors take {free} bytes, the file has {size}{cut}')


def _packed(name, array, dtype):
    """The array's numbers in a row, as `dtype`."""
    with np.errstate(over='ignore'):
        # Cast first: then the change of order moves half the bytes.
        packed = np.ravel(np.asarray(array, dtype), order='C')
    if dtype is not None and packed.dtype != array.dtype and not np.isfinite(packed).all() and np.isfinite(array).all():
        raise ValueError(f'{name}: a number is too large for {np.dtype(dtype).name}')
    return packed.view(np.uint8)
