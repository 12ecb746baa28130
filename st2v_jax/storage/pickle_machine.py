"""Pickle streams of checkpoints, read as data: opcodes build plain values, and nothing is ever imported or called.

A pickle is a program for a stack machine. The machine of Python's pickle module looks up whatever the program names
and calls it; this one knows the opcodes that torch.save writes and a short list of names, each with a meaning of its
own below. Tensors and storages become records that say where their numbers are. Everything else raises
UnsafeCheckpointError, and so does a program that is larger than that of any checkpoint.
"""

import math
import mmap
import pickletools
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np

from st2v_jax.storage import untrusted
from st2v_jax.storage.untrusted import UnsafeCheckpointError

# A file of 3,400 tensors takes 140,000 opcodes, a stack of 2,000 values and 0.4 MB.
MAX_BYTES, MAX_OPCODES, MAX_STACK = 1 << 26, 2_000_000, 20_000
MAX_RANK = 32


@dataclass(frozen=True)
class Name:
    """What a program asks to import, kept as text."""

    module: str
    name: str

    def __str__(self):
        return f'{self.module}.{self.name}'


@dataclass(frozen=True)
class Unread:
    """The value of a call that holds no weights."""

    of: Name


@dataclass(frozen=True)
class Storage:
    """`count` numbers of `dtype` in a row; the file lists its storages by `key`."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class Tensor:
    """Element i, j, ... is number offset + i * strides[0] + j * strides[1] + ... of the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


STORAGES = {
    Name('torch', f'{name}Storage'): np.dtype(dtype)
    for name, dtype in {
        'Double': np.float64,
        'Float': np.float32,
        'Half': np.float16,
        'BFloat16': jnp.bfloat16,
        'Long': np.int64,
        'Int': np.int32,
        'Short': np.int16,
        'Char': np.int8,
        'Byte': np.uint8,
        'Bool': np.bool_,
    }.items()
}

# Lightning stores scores of its callbacks beside the weights; published files have them, and they are not needed.
UNREAD = {
    Name('numpy', 'dtype'),
    Name('numpy.core.multiarray', 'scalar'),
    Name('numpy._core.multiarray', 'scalar'),
    Name('_codecs', 'encode'),
    Name('pytorch_lightning.callbacks.model_checkpoint', 'ModelCheckpoint'),
}


def show(value: Any) -> str:
    """A value of the machine in a few words."""
    return untrusted.show(str(value) if isinstance(value, Name) else value)


def _is_count(value):
    return type(value) is int and 0 <= value < 1 << 48


def _ordered_dict(args):
    """An empty dict, or in files of Python 2 that of a list of pairs."""
    if args == ():
        return {}
    if len(args) != 1 or type(args[0]) is not list or not args[0]:
        raise UnsafeCheckpointError(f'OrderedDict takes nothing or one list of pairs, got {show(args)}')
    pairs = args[0][:]
    args[0].clear()  # used once: a program that calls with the same long list again and again would take forever
    if not all(type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) is str for pair in pairs):
        raise UnsafeCheckpointError('OrderedDict takes pairs of a name and a value')
    items = dict(pairs)
    if len(items) != len(pairs):
        raise UnsafeCheckpointError('OrderedDict has a name twice')
    return items


def _rebuild_tensor(args):
    """The Tensor of (storage, offset, shape, strides); the arguments after them say how it is trained."""
    if not 4 <= len(args) <= 7:
        raise UnsafeCheckpointError(f'a tensor is made of 4 to 7 arguments, got {len(args)}')
    storage, offset, shape, strides, *rest = args
    if not isinstance(storage, Storage):
        raise UnsafeCheckpointError(f'a tensor is made of a storage, got {show(storage)}')
    for extents in (shape, strides):
        if type(extents) is not tuple or len(extents) > MAX_RANK or not all(_is_count(n) for n in extents):
            raise UnsafeCheckpointError(
                f'shape and strides are tuples of at most {MAX_RANK} whole numbers from 0 to 2**48, got {show(extents)}'
            )
    if not _is_count(offset) or len(shape) != len(strides):
        raise UnsafeCheckpointError(
            f'a tensor has an offset from 0 to 2**48 and a stride for each axis, got offset {show(offset)}, '
            f'{len(shape)} axes and {len(strides)} strides'
        )
    if not all(type(value) in kinds for value, kinds in zip(rest, ((bool,), (dict, type(None)), (dict, type(None))))):
        raise UnsafeCheckpointError(f'a tensor ends with a bool, hooks and metadata, got {", ".join(map(show, rest))}')
    # Views that repeat numbers (stride 0) would let a small file ask for any amount of memory.
    if math.prod(n for n in shape if n) > max(storage.count, 1 << 24 if 0 in shape else 1):
        raise UnsafeCheckpointError(f'a tensor has no more elements than its storage, {storage.count}; got {shape}')
    end = offset + sum((n - 1) * stride for n, stride in zip(shape, strides)) + 1
    if 0 not in shape and end > storage.count:
        raise UnsafeCheckpointError(f'a tensor ends at element {end} of a storage of {storage.count}')
    return Tensor(storage, offset, shape, strides)


def _rebuild_parameter(args):
    if len(args) != 3 or not isinstance(args[0], Tensor) or type(args[1]) is not bool or type(args[2]) is not dict:
        raise UnsafeCheckpointError(f'a parameter is a tensor, a bool and hooks, got {", ".join(map(show, args))}')
    return args[0]


def _size(args):
    if len(args) != 1 or type(args[0]) is not tuple:
        raise UnsafeCheckpointError(f'torch.Size takes one tuple, got {show(args)}')
    return args[0]


CALLS = {
    Name('collections', 'OrderedDict'): _ordered_dict,
    Name('torch', 'Size'): _size,
    Name('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
    Name('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    Name('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
}
KNOWN = {*CALLS, *STORAGES, *UNREAD}


class Machine:
    """Reads one pickle of `data` (bytes or a memory map) between `at` and `end`.

    After `run`, `at` is the position of the next byte, and `storages` has every storage that the pickle named, by key.

    Attributes:
      calls: what a name makes of its arguments.
      known: the names that a program may ask for.
    """

    calls, known = CALLS, KNOWN

    def __init__(self, data: bytes | mmap.mmap, at: int, end: int):
        self.data, self.at, self.end = data, at, min(end, at + MAX_BYTES)
        self.stack, self.marks, self.memo = [], [], {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        """The value of the pickle. Raises UnsafeCheckpointError with the position of what is refused."""
        start = self.at
        for _ in range(MAX_OPCODES):
            here = self.at
            try:
                code = self.take(1)
                if code == b'.':
                    return self.result()
                if code not in ACTIONS:
                    known = pickletools.code2op.get(code.decode('latin-1'))
                    _refuse(f'opcode {known.name if known else code!r} has no place in a checkpoint')
                ACTIONS[code](self)
                if len(self.stack) > MAX_STACK or len(self.marks) > MAX_STACK:
                    _refuse(f'more than {MAX_STACK} values wait on the stack')
            except UnsafeCheckpointError as error:
                raise UnsafeCheckpointError(f'pickle at byte {start}, opcode at byte {here}: {error}') from None
        raise UnsafeCheckpointError(f'pickle at byte {start}: more than {MAX_OPCODES} opcodes')

    def take(self, n: int) -> bytes:
        if n > self.end - self.at:
            _refuse(f'{n} bytes are needed and {self.end - self.at} are left (at most {MAX_BYTES} in all)')
        self.at += n
        return bytes(self.data[self.at - n : self.at])

    def number(self, layout: str) -> int | float:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, n: int, encoding: str = 'utf-8') -> str:
        try:
            return self.take(n).decode(encoding)
        except UnicodeDecodeError:
            _refuse('text that is not UTF-8')

    def line(self) -> str:
        stop = self.data.find(b'\n', self.at, min(self.end, self.at + 256))
        if stop < 0:
            _refuse('a name takes at most 255 bytes and ends with a new line')
        name = self.text(stop - self.at)
        self.at += 1
        return name

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            _refuse('a value is needed and none is left')
        return self.stack.pop()

    def pop_many(self) -> list[Any]:
        """The values since the last mark."""
        if not self.marks:
            _refuse('a mark is needed and there is none')
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def tuple_of(self, n: int) -> None:
        self.push(tuple(self.pop() for _ in range(n))[::-1])

    def top(self, kind: type) -> Any:
        value = self.pop()
        if type(value) is not kind:
            _refuse(f'a {kind.__name__} is needed, got {show(value)}')
        self.push(value)
        return value

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        items = self.top(dict)
        if len(values) % 2:
            _refuse(f'keys and values come in pairs, got {len(values)}')
        for key, value in zip(values[::2], values[1::2]):
            # Other keys may take forever: nested tuples that are hashed, or numbers that all have the same hash.
            if not isinstance(key, str | Name) and not (type(key) is int and 0 <= key < 1 << 32):
                _refuse(f'keys are text, class names or numbers below 2**32, got {show(key)}')
            if key in items:
                _refuse(f'{show(key)} comes twice')
            items[key] = value

    def get(self, index: int) -> None:
        if index not in self.memo:
            _refuse(f'value {index} is not in the memo')
        self.push(self.memo[index])

    def put(self, index: int) -> None:
        value = self.pop()
        self.push(value)
        self.memo[index] = value

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            _refuse(f'a name is two words, got {show(module)} and {show(name)}')
        asked = Name(module, name)
        if asked not in self.known:
            _refuse(f'{show(asked)} is not among the names that weights need; nothing was imported')
        self.push(asked)

    def name_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        if type(args) is not tuple or not isinstance(function, Name):
            _refuse(f'a call is a name and a tuple, got {show(function)} and {show(args)}')
        if function in self.calls:
            self.push(self.calls[function](args))
        elif function in UNREAD:
            self.push(Unread(function))
        else:
            _refuse(f'{show(function)} is not called in a checkpoint')

    def set_state(self) -> None:
        """Attributes of a dict of tensors (versions of its modules) or of an `Unread` value; they are ignored."""
        state = self.pop()
        value = self.pop()
        if not isinstance(value, Unread) and not (type(value) is dict and type(state) is dict):
            _refuse(f'{show(value)} takes no attributes')
        self.push(value)

    def storage(self) -> None:
        """The Storage of ('storage', type, key, device, count); in older files None follows."""
        told = self.pop()
        if type(told) is not tuple or len(told) not in (5, 6) or told[0] != 'storage' or told[5:] not in ((), (None,)):
            _refuse(f"only a whole storage is referred to, as ('storage', type, key, device, count), got {show(told)}")
        _, kind, key, device, count = told[:5]
        if not isinstance(kind, Name) or kind not in STORAGES:
            _refuse(f'storages hold {", ".join(name.name for name in STORAGES)}; got {show(kind)}')
        if type(key) is not str or type(device) is not str or not _is_count(count):
            _refuse(f'a storage has a key, a device and a count, got {show(key)}, {show(device)}, {show(count)}')
        storage = Storage(key, STORAGES[kind], count)
        if self.storages.setdefault(key, storage) != storage:
            was = self.storages[key]
            _refuse(f'storage {show(key)} was {was.count} of {was.dtype} and is now {count} of {storage.dtype}')
        self.push(storage)

    def protocol(self) -> None:
        version = self.number('B')
        if not 2 <= version <= 5:
            _refuse(f'checkpoints are pickles of protocol 2 to 5, got {version}')

    def long(self) -> None:
        size = self.number('B')
        if size > 16:
            _refuse(f'whole numbers take at most 16 bytes, got {size}')
        self.push(int.from_bytes(self.take(size), 'little', signed=True))

    def result(self) -> Any:
        value = self.pop()
        if self.stack or self.marks:
            _refuse(f'the pickle ends with {len(self.stack)} values and {len(self.marks)} marks too many')
        return value


ACTIONS = {
    b'\x80': Machine.protocol,
    b'\x95': lambda m: m.number('<Q'),  # length of a frame: a hint for reading ahead
    b'N': lambda m: m.push(None),
    b'\x88': lambda m: m.push(True),
    b'\x89': lambda m: m.push(False),
    b'K': lambda m: m.push(m.number('B')),
    b'M': lambda m: m.push(m.number('<H')),
    b'J': lambda m: m.push(m.number('<i')),
    b'\x8a': Machine.long,
    b'G': lambda m: m.push(m.number('>d')),
    b'X': lambda m: m.push(m.text(m.number('<I'))),
    b'\x8c': lambda m: m.push(m.text(m.number('B'))),
    b'U': lambda m: m.push(m.text(m.number('B'), 'latin-1')),
    b'C': lambda m: m.push(m.take(m.number('B'))),
    b'B': lambda m: m.push(m.take(m.number('<I'))),
    b']': lambda m: m.push([]),
    b'}': lambda m: m.push({}),
    b')': lambda m: m.push(()),
    b'\x85': lambda m: m.tuple_of(1),
    b'\x86': lambda m: m.tuple_of(2),
    b'\x87': lambda m: m.tuple_of(3),
    b't': lambda m: m.push(tuple(m.pop_many())),
    b'(': lambda m: m.marks.append(len(m.stack)),
    b'a': lambda m: m.append([m.pop()]),
    b'e': lambda m: m.append(m.pop_many()),
    b's': lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b'u': lambda m: m.set_items(m.pop_many()),
    b'0': Machine.pop,
    b'1': Machine.pop_many,
    b'h': lambda m: m.get(m.number('B')),
    b'j': lambda m: m.get(m.number('<I')),
    b'q': lambda m: m.put(m.number('B')),
    b'r': lambda m: m.put(m.number('<I')),
    b'\x94': lambda m: m.put(len(m.memo)),
    b'c': lambda m: m.name(m.line(), m.line()),
    b'\x93': Machine.name_on_stack,
    b'R': Machine.call,
    b'b': lambda m: m.set_state(),
    b'Q': Machine.storage,
}


def _refuse(rule) -> NoReturn:
    raise UnsafeCheckpointError(rule)
