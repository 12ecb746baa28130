"""Pickles of numpy arrays in nested dicts, read as data: the machine of checkpoints with numpy's names.

numpy pickles an array as an empty one that is given its state later: shape, type and bytes. Here both are plain values,
nothing of numpy is called on behalf of the file, and the numbers are taken from its bytes. Only types of whole and
floating-point numbers are known: objects in an array would be pickled values of any kind.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.storage.pickle_machine import MAX_BYTES, MAX_RANK, Machine, Name, show
from st2v_jax.storage.untrusted import UnsafeCheckpointError

MAX_VALUES, MAX_DEPTH, MAX_NAME = 20_000, 16, 200  # of the dicts and arrays in a file
TYPES = frozenset(f'{kind}{size}' for kind, sizes in (('f', '248'), ('i', '1248'), ('u', '1248')) for size in sizes)
ARRAY = Name('numpy', 'ndarray')


class _Type:
    """A type whose order of bytes comes with its state."""

    def __init__(self, code: str):
        self.code, self.dtype = code, None

    def set_state(self, state: Any) -> None:
        if self.dtype is not None:
            raise UnsafeCheckpointError('a type is given its state twice')
        # Version, order, subtype, names and fields, size and alignment (-1: those of the code), flags
        if type(state) is not tuple or len(state) != 8 or state[0] not in (3, 4) or state[1] not in ('<', '>', '|'):
            raise UnsafeCheckpointError(f'a type has a version and an order of bytes, got {show(state)}')
        if state[2:] != (None, None, None, -1, -1, 0):
            raise UnsafeCheckpointError('arrays hold plain numbers, without fields')
        self.dtype = np.dtype(state[1] + self.code)


class _Array:
    """An array whose numbers come with its state."""

    def __init__(self):
        self.array = None

    def set_state(self, state: Any) -> None:
        if self.array is not None:
            raise UnsafeCheckpointError('an array is given its state twice')
        if type(state) is not tuple or len(state) != 5 or state[0] != 1 or type(state[3]) is not bool:
            raise UnsafeCheckpointError(f'an array has a version, shape, type, order and bytes, got {show(state)}')
        _, shape, kind, by_columns, data = state
        self.array = _numbers(shape, kind, data, 'F' if by_columns else 'C')


def _numbers(shape, kind, data, order):
    """The array [shape] in `data`, a view of it."""
    whole = type(shape) is tuple and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
    if not whole or len(shape) > MAX_RANK:
        raise UnsafeCheckpointError(f'a shape has at most {MAX_RANK} whole numbers from 0 to 2**48, got {show(shape)}')
    if not isinstance(kind, _Type) or kind.dtype is None:
        raise UnsafeCheckpointError(f'an array has a type of numbers, got {show(kind)}')
    needed = math.prod(shape) * kind.dtype.itemsize
    # An empty array must not have long axes either: whoever multiplies them would make a large one.
    if type(data) is not bytes or len(data) != needed or 0 in shape and max(shape) > 1 << 24:
        held = f'{len(data)} bytes' if type(data) is bytes else show(data)
        raise UnsafeCheckpointError(f'an array of shape {shape} takes {needed} bytes, the file has {held}')
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


def _type(args):
    if len(args) != 3 or type(args[0]) is not str or args[0] not in TYPES or args[1:] != (False, True):
        raise UnsafeCheckpointError(f'arrays hold whole and floating-point numbers, got {", ".join(map(show, args))}')
    return _Type(args[0])


def _reconstruct(args):
    if args != (ARRAY, (0,), b'b'):
        raise UnsafeCheckpointError(f'an array begins as an empty one, got {", ".join(map(show, args))}')
    return _Array()


def _scalar(args):
    if len(args) != 2:
        raise UnsafeCheckpointError(f'a number has a type and bytes, got {len(args)} arguments')
    made = _Array()
    made.array = _numbers((), *args, 'C')
    return made


class ArrayMachine(Machine):
    """The machine for dicts of arrays; both the names before and since numpy 2 are known."""

    calls = {Name('numpy', 'dtype'): _type} | {
        Name(f'numpy.{core}.multiarray', name): made
        for core in ('core', '_core')
        for name, made in (('_reconstruct', _reconstruct), ('scalar', _scalar))
    }
    known = frozenset({ARRAY, *calls})

    def set_state(self) -> None:
        """Of a type or of an array, once."""
        state, value = self.pop(), self.pop()
        if not isinstance(value, _Type | _Array):
            raise UnsafeCheckpointError(f'{show(value)} takes no state')
        value.set_state(state)
        self.push(value)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file, {'params/layer/kernel': array}; they are views of what was read and cannot be written to.

    Raises:
      UnsafeCheckpointError: for a file that holds anything but nested dicts of arrays of numbers, or is cut short.
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise UnsafeCheckpointError(f'pickles of arrays are read up to {MAX_BYTES} bytes')
        data = Path(path).read_bytes()
        machine = ArrayMachine(data, 0, len(data))
        value = machine.run()
        if machine.at != len(data):
            raise UnsafeCheckpointError(f'{len(data) - machine.at} bytes follow the pickle')
        return _flat(value)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f'{path}: {error}') from None


def _flat(value):
    """{path: array} of nested dicts; a hostile file may nest a dict in itself, or the same one many times."""
    found, waiting, seen = {}, [('', value, 0)], 0
    while waiting:
        path, value, depth = waiting.pop()
        seen += 1
        if isinstance(value, _Array) and value.array is not None and path:
            if path in found:
                raise UnsafeCheckpointError(f'{show(path)} comes twice')
            found[path] = value.array
        elif type(value) is dict and depth < MAX_DEPTH and seen + len(waiting) + len(value) <= MAX_VALUES:
            for name, inner in value.items():
                if type(name) is not str or len(name) > MAX_NAME:
                    raise UnsafeCheckpointError(f'names are text of at most {MAX_NAME} letters, got {show(name)}')
                waiting.append((f'{path}/{name}' if path else name, inner, depth + 1))
        elif type(value) is dict:
            raise UnsafeCheckpointError(f'dicts are nested {MAX_DEPTH} deep at most and hold {MAX_VALUES} values')
        else:
            raise UnsafeCheckpointError(f'a file holds dicts of arrays, got {show(value)} as {show(path)}')
    return found
