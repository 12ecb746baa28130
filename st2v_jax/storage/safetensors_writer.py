"""safetensors files written one array after the other, so that a file of any size needs the memory of one array."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from st2v_jax.storage.safetensors_reader import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write(
    file: str | Path,
    arrays: Mapping[str, np.ndarray],
    dtype=None,
    *,
    notes: Mapping[str, str] | None = None,
    on_array: Callable[[int], None] | None = None,
):
    """Writes `file` beside its place and then renames it: a reader finds the old file or the new one.

    Args:
      arrays: name -> array, asked for one by one in the order of the mapping, for its shape and later its numbers.
      dtype: of the file; None keeps every array's own.
      notes: texts that go into the header.
      on_array: told the number of elements of every array that is written.

    Raises ValueError for a number that is finite in an array and not as `dtype`.
    """
    header, end = {'__metadata__': dict(notes)} if notes else {}, 0
    for name in arrays:
        kept = np.dtype(dtype or arrays[name].dtype)
        begin, end = end, end + arrays[name].size * kept.itemsize
        header[name] = {'dtype': NAMES[kept], 'shape': arrays[name].shape, 'data_offsets': [begin, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)  # the numbers begin where any type may lie
    file = Path(file)
    beside = file.with_name(f'.{file.name}.part')  # always the same: what a killed process left is written over
    try:
        with open(beside, 'wb') as stream:
            stream.write(len(text).to_bytes(8, 'little') + text)
            for name in arrays:
                stream.write(_packed(name, arrays[name], dtype))
                if on_array is not None:
                    on_array(arrays[name].size)
        os.replace(beside, file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _packed(name, array, dtype):
    """The array's numbers in a row, as `dtype`."""
    with np.errstate(over='ignore'):
        # The cast first: it halves what the change of order has to move.
        packed = np.ravel(np.asarray(array, dtype), order='C')
    if dtype is not None and packed.dtype != array.dtype and not np.isfinite(packed).all() and np.isfinite(array).all():
        raise ValueError(f'{name}: a number is too large for {np.dtype(dtype).name}')
    return packed.view(np.uint8)
