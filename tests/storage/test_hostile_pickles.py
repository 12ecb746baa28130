"""Hostile pickles: nothing runs, nothing hangs, nothing is large; the error is ours."""

import struct

import numpy as np
import pytest
import torch_files as files
from harmless import refused
from torch_files import call, dict_of, name, plain, program, storage, tensor

from st2v_jax.storage import pickle_machine

DATA = {'0': np.arange(6, dtype=np.float32)}

COMMANDS = [
    *(('os', f) for f in ('system', 'popen', 'execv', 'remove', 'fork', '_exit')),
    *(('posix', f) for f in ('system', 'kill')),
    ('nt', 'system'),
    *(
        ('builtins', f)
        for f in (
            *(
                'eval',
                'exec',
                'compile',
                'open',
                '__import__',
                'getattr',
                'setattr',
                'delattr',
                'print',
                'input',
                'vars',
            ),
            *(
                'globals',
                'locals',
                'breakpoint',
                'map',
                'filter',
                'type',
                'object',
                'super',
                'bytearray',
                'range',
                'set',
            ),
        )
    ),
    *(('__builtin__', f) for f in ('eval', 'execfile', 'file', 'apply')),
    *(('subprocess', f) for f in ('Popen', 'run', 'call', 'check_output')),
    *(('sys', f) for f in ('exit', 'modules', 'setrecursionlimit')),
    *(
        ('pickle', 'loads'),
        ('_pickle', 'loads'),
        ('marshal', 'loads'),
        ('shelve', 'open'),
        ('copyreg', '_reconstructor'),
    ),
    *(
        ('importlib', 'import_module'),
        ('runpy', 'run_path'),
        ('pty', 'spawn'),
        ('shutil', 'rmtree'),
        ('code', 'interact'),
    ),
    *(('socket', 'socket'), ('ctypes', 'CDLL'), ('webbrowser', 'open'), ('timeit', 'timeit'), ('pdb', 'run')),
    *(('types', 'FunctionType'), ('types', 'CodeType'), ('functools', 'partial'), ('functools', 'reduce')),
    *(('operator', 'attrgetter'), ('operator', 'methodcaller'), ('itertools', 'count'), ('collections', 'deque')),
    *(('collections', 'OrderedDict.__class__'), ('collections', 'defaultdict'), ('collections.OrderedDict', '')),
    *(('torch', 'load'), ('torch.hub', 'load'), ('torch.storage', '_load_from_bytes'), ('torch', 'FloatTensor')),
    *(('torch._utils', '_rebuild_sparse_tensor'), ('torch._utils', '_rebuild_tensor_v2.__globals__')),
    *(('torch.nn', 'Linear'), ('torch.jit', 'load'), ('torch', 'StringStorage'), ('torch', 'float32')),
    *(('numpy', 'load'), ('numpy', 'fromfile'), ('numpy', 'ndarray'), ('numpy.core.multiarray', '_reconstruct')),
    *(('st2v_jax.storage.pickle_reader', 'PickledTensors'), ('st2v_jax.weights.folder', 'save'), ('__main__', 'x')),
    *(('', ''), ('os.path', 'os.system'), (' os', 'system'), ('\u043es', 'system'), ('collections', 'ordereddict')),
]


@pytest.mark.parametrize('container', files.CONTAINERS)
@pytest.mark.parametrize('command', COMMANDS, ids='.'.join)
def test_hostile_names_are_not_imported(command, container, tmp_path):
    arguments = plain('touch ran') + b'\x85R'
    on_stack = b''.join(map(plain, command)) + b'\x93'
    for value in (
        name(*command) + arguments,
        name(*command),
        on_stack + arguments,
        tensor(name(*command) + arguments),
        name(*command) + b')\x81',
        b'(' + name(*command) + b'o',
        dict_of(**{'0': name(*command) + arguments}) + b'0' + tensor(storage(container)),
    ):
        path = files.packed(container, program(dict_of(w=value)), DATA, tmp_path / 'x')
        refused(path, 'is not among the names that weights need')


W = b'<a good tensor>'  # inserted for each container
S = b'<a good storage>'
REBUILD = name('torch._utils', '_rebuild_tensor_v2')
ORDERED = name('collections', 'OrderedDict')
FLOATS = name('torch', 'FloatStorage')
PAIRS = b']' + plain('a') + W + b'\x86a'
PARAMETER = name('torch._utils', '_rebuild_parameter')
BIG = b'\x8a\xff' + b'\x7f' * 255


def told(*parts):
    return b'(' + b''.join(parts) + b'tQ'


def view(shape, strides, offset=0):
    return tensor(S, shape, strides, offset)


VALUES = {
    # opcodes that look names up, call or read more than a checkpoint needs
    'inst': b'(ios\nsystem\n',
    'inst of a known name': b'(icollections\nOrderedDict\n',
    'obj': b'(' + ORDERED + b'o',
    'newobj': ORDERED + b')\x81',
    'newobj_ex': ORDERED + b')}\x92',
    'ext1': b'\x82\x01',
    'ext2': b'\x83\x01\x00',
    'ext4': b'\x84\x01\x00\x00\x00',
    'persid': b'P0\n',
    'text persid': b'Pstorage\n',
    'next_buffer': b'\x97',
    'readonly_buffer': b'\x97\x98',
    'bytearray8': b'\x96' + struct.pack('<Q', 4) + b'abcd',
    'bytearray8 of 2**63': b'\x96' + struct.pack('<Q', 1 << 63),
    'set': b'\x8f',
    'frozenset': b'(\x91',
    'dup': W + b'2',
    'text get': b'g0\n',
    'text int': b'I1\n',
    'text int of 9000 digits': b'I' + b'9' * 9000 + b'\n',
    'text long': b'L1L\n',
    'long4': b'\x8b\x04\x00\x00\x00aaaa',
    'long4 of 2 GB': b'\x8b\xff\xff\xff\x7f',
    'text float': b'F1.5\n',
    'text string': b"S'\\d'\n",
    'text unicode': b'Vabc\n',
    'unknown opcode': b'\xfe',
    'opcode 255': b'\xff',
    'zero byte': b'\x00',
    # sizes beyond the file
    'text of 4 GB': b'X\xff\xff\xff\xff',
    'text8': b'\x8d' + struct.pack('<Q', 1 << 62),
    'bytes of 255': b'C\xffabc',
    'frame': b'\x95\xff',
    'long1 of 255 bytes': BIG,
    'name without end': b'cos',
    'name of 300 bytes': b'c' + b'a' * 300 + b'\nb\n',
    'name that is not utf-8': b'c\xff\xfe\nb\n',
    'text that is not utf-8': b'X\x02\x00\x00\x00\xff\xfe',
    'surrogate': b'X\x03\x00\x00\x00\xed\xa0\x80',
    # stack, marks and memo
    'nothing to pop': b'000000',
    'pop_mark without mark': b'11',
    'tuple without mark': b'tt',
    'mark left': b'((',
    'values left': b'NN',
    'pop below a mark': b'N(0',
    'tuple below a mark': b'(N\x86',
    'append below a mark': b'](a',
    'append to a tuple': b')Na',
    'append to a name': ORDERED + b'Na',
    'extend a dict': b'}(Ne',
    'items of a list': b'](NNu',
    'items of a storage': S + b'(NNu',
    'odd items': b'}(' + plain('a') + b'u',
    'item of a name': ORDERED + plain('a') + b'Ns',
    'get before put': b'h\x09',
    'long get before put': b'j\xff\xff\xff\xff',
    'huge get': b'Nr\x00\x00\x00\x80j\x01\x00\x00\x80',
    'huge put': b'Nr\xff\xff\xff\xff' + W + b'a',
    'memoize then wrong get': b'N\x94h\xfa',
    'put of nothing': b'(q\x01',
    # keys that are slow, or not keys at all
    'list as key': b'}]Ns',
    'dict as key': b'}}Ns',
    'tuple as key': b'})Ns',
    'tensor as key': b'}' + W + b'Ns',
    'storage as key': b'}' + S + b'Ns',
    'none as key': b'}NNs',
    'float as key': b'}G' + b'\x00' * 8 + b'Ns',
    'true as key': b'}\x88Ns',
    'number that hashes to 0 as key': b'}' + plain((1 << 61) - 1) + b'Ns',
    'negative key': b'}J\xff\xff\xff\xffNs',
    'key twice': b'}' + (plain('a') + b'Ns') * 2,
    # calls with wrong arguments
    'call of text': plain('os.system') + plain('ls') + b'\x85R',
    'call of none': b'N)R',
    'call of a tensor': W + b')R',
    'call of a storage type': FLOATS + b')R',
    'call of a storage type with a size': FLOATS + plain((1 << 40,)) + b'R',
    'call of a call': ORDERED + b')R)R',
    'call with a list': ORDERED + b']R',
    'call with a dict': REBUILD + b'}R',
    'call with one tensor': REBUILD + W + b'R',
    'ordered dict of a list': ORDERED + b']\x85R',
    'ordered dict of two lists': ORDERED + PAIRS + b']\x86R',
    'ordered dict of a tuple of pairs': ORDERED + b'(' + plain('a') + W + b'\x86t\x85R',
    'ordered dict of text': ORDERED + b']' + plain('ab') + b'a\x85R',
    'ordered dict of a pair of three': ORDERED + b']' + plain(('a', 'b', 'c')) + b'a\x85R',
    'ordered dict of a number and a value': ORDERED + b']' + plain((1, 'b')) + b'a\x85R',
    'ordered dict of a tuple and a value': ORDERED + b']' + plain((('a',), 'b')) + b'a\x85R',
    'ordered dict of a name twice': ORDERED + b']' + 2 * (plain('a') + W + b'\x86a') + b'\x85R',
    'ordered dict of one list twice': (
        b'}' + plain('a') + ORDERED + PAIRS + b'q\x00\x85Rs' + plain('b') + ORDERED + b'h\x00\x85Rs'
    ),
    'ordered dict of itself': ORDERED + ORDERED + b')R\x85R',
    'size of a number': name('torch', 'Size') + plain((1 << 40,)) + b'R',
    'size of two': name('torch', 'Size') + b'))\x86R',
    'tensor of nothing': REBUILD + b')R',
    'tensor of eight': call(REBUILD, S, *(plain(n) for n in (0, (2, 3), (3, 1), True, None, None, None))),
    'tensor of text': tensor(plain('0')),
    'tensor of a tensor': tensor(W),
    'tensor of a name': tensor(FLOATS),
    'tensor with hooks': tensor(S, end=b'\x89' + ORDERED),
    'tensor with text for hooks': tensor(S, end=b'\x89' + plain('os.system')),
    'tensor that is trained by text': tensor(S, end=plain('yes') + b'}'),
    'tensor with metadata text': tensor(S, end=b'\x89}' + plain('m')),
    'parameter of text': call(PARAMETER, plain('w'), b'\x88', b'}'),
    'parameter of a name': call(PARAMETER, ORDERED, b'\x88', b'}'),
    'parameter of one': call(PARAMETER, W),
    'parameter with a state': call(PARAMETER, W, b'\x88', b'}', b'}'),
    'parameter with hooks of text': call(PARAMETER, W, b'\x88', plain('h')),
    # attributes: those of functions and types would outlive the file
    'attributes of a function': REBUILD + dict_of(__defaults__=b')') + b'b',
    'code of a function': REBUILD + b'N' + dict_of(__code__=plain('x')) + b'\x86b',
    'attributes of a type': ORDERED + dict_of(__init__=ORDERED) + b'b',
    'attributes of a tensor': W + dict_of(shape=plain((1 << 40,))) + b'b',
    'attributes of a storage': S + dict_of(count=plain(1 << 40)) + b'b',
    'attributes of text': plain('a') + b'}b',
    'state of a list': b']}b',
    'state that is no dict': ORDERED + b')R' + b']b',
    'slots': ORDERED + b')RN}\x86b',
    # shapes, strides and offsets
    'negative size': view((-2, 3), (3, 1)),
    'negative stride': view((2, 3), (-3, 1), 3),
    'negative offset': view((2,), (1,), -1),
    'offset past the end': view((2,), (1,), 5),
    'huge offset': view((2,), (1,), 1 << 62),
    'huge size': view((1 << 40,), (1,)),
    'huge size without stride': view((1 << 40,), (0,)),
    'huge sizes': view((1 << 47,) * 32, (0,) * 32),
    'size beyond 2**64': view((1 << 70,), (1,)),
    'huge empty': view((0, 1 << 47), (1, 1)),
    'empty beyond numpy': view((0,) + (1 << 47,) * 8, (1,) * 9),
    'repeated numbers': view((7,), (0,)),
    'one too many': view((7,), (1,)),
    'stride too long': view((2, 3), (4, 1)),
    'axes without strides': view((2, 3), (1,)),
    'strides without axes': view((), (1,)),
    'thirty-three axes': view((1,) * 33, (1,) * 33),
    'fifteen thousand axes': tensor(S).replace(plain((2, 3)), b'(' + b'K\x01' * 15_000 + b't'),
    'list as shape': tensor(S).replace(plain((2, 3)), b'](K\x02K\x03e'),
    'text as shape': tensor(S).replace(plain((2, 3)), plain('23')),
    'text in the shape': tensor(S).replace(plain((2, 3)), plain(('2', '3'))),
    'truth in the shape': tensor(S).replace(plain((2, 3)), b'\x88K\x03\x86'),
    'float in the shape': tensor(S).replace(plain((2, 3)), b'G@\x00\x00\x00\x00\x00\x00\x00K\x03\x86'),
    'none as shape': tensor(S).replace(plain((2, 3)), b'N'),
    'shape in the shape': tensor(S).replace(plain((2, 3)), plain(((2,), 3))),
    'text as offset': tensor(S).replace(plain(0), plain('0')),
    # persistent ids
    'id of nothing': b')Q',
    'id of text': plain('0') + b'Q',
    'id of none': b'NQ',
    'id of a list': b']Q',
    'id of a name': FLOATS + b'Q',
    'id of a tensor': W + b'Q',
    'module': told(plain('module'), ORDERED, plain('file'), plain('source')),
    'module of five': told(plain('module'), FLOATS, plain('0'), plain('cpu'), plain(6)),
    'id that starts with a list': told(b']', FLOATS, plain('0'), plain('cpu'), plain(6)),
    'id of four': told(plain('storage'), FLOATS, plain('0'), plain('cpu')),
    'id of seven': told(plain('storage'), FLOATS, plain('0'), plain('cpu'), plain(6), b'NN'),
    'storage of a type by text': told(plain('storage'), plain('FloatStorage'), plain('0'), plain('cpu'), plain(6)),
    'storage of a function': told(plain('storage'), REBUILD, plain('0'), plain('cpu'), plain(6)),
    'storage of none': told(plain('storage'), b'N', plain('0'), plain('cpu'), plain(6)),
    'view of a storage': storage('', end=plain(('1', 0, 6))),
    'key that is a number': storage('').replace(plain('0'), plain(0)),
    'key that is a list': storage('').replace(plain('0'), b']'),
    'key that climbs': tensor(storage('', '../data.pkl')),
    'key that is absolute': tensor(storage('', '/etc/passwd')),
    'key that is another record': tensor(storage('', '../version')),
    'key that is empty': tensor(storage('', '')),
    'key that is not there': tensor(storage('', '1')),
    'key of 90 kB': tensor(storage('', 'k' * 90_000)),
    'device that is a number': storage('').replace(plain('cpu'), plain(0)),
    'negative count': storage('', count=-1),
    'count of 2**70': storage('', count=1 << 70),
    'count of text': storage('').replace(plain(6), plain('6')),
    'count of true': storage('').replace(plain(6), b'\x88'),
    'count beyond the file': tensor(storage('', count=1 << 40)),
    'count below the file': tensor(storage('', count=5), (5,), (1,)),
    'other type': tensor(storage('', kind='DoubleStorage')),
    'two types': tensor(S) + b'0' + tensor(storage('', kind='IntStorage')),
    'two counts': S + b'0' + storage('', count=3),
    # what is left at the end is not a tensor
    'none': b'N',
    'text': plain('w'),
    'text of 90 kB': plain('w' * 90_000),
    'storage': S,
    'tensors in a dict': dict_of(w=W),
    'tensors in a list': b'](' + W + b'e',
    'note': name('numpy', 'dtype') + b')R',
    'class of a note': name('pytorch_lightning.callbacks.model_checkpoint', 'ModelCheckpoint'),
    'list in itself': b']q\x01h\x01a',
    'dict in itself': b'}q\x01' + plain('w') + b'h\x01s',
    'lists in lists': b']q\x00' + b']q\x01h\x00ah\x00aq\x000h\x01' * 100,
    'tuples of tuples': b')' + b'q\x00h\x00\x86' * 5000,
    'tuples in tuples': b')' + b'\x85' * 30_000,
    'marks in marks': b'(' * 30_000,
    'values without end': b'N' * 30_000,
    'lists without end': b']' * 30_000,
    'numbers of 16 bytes': (b'\x8a\x10' + b'\xff' * 16) * 30_000,
}


@pytest.mark.parametrize('container', files.CONTAINERS)
@pytest.mark.parametrize('value', VALUES)
def test_hostile_pickles_are_refused(value, container, tmp_path):
    made = VALUES[value].replace(W, tensor(S)).replace(S, storage(container))
    refused(files.packed(container, program(dict_of(w=made)), DATA, tmp_path / 'x'))


@pytest.mark.parametrize('container', files.CONTAINERS)
@pytest.mark.parametrize(
    'pickled',
    [b'', b'.', b'\x80', b'\x80\x02', b'\x80\x02.', b'\x80\x00N.', b'\x80\x01N.', b'\x80\x06N.', b'\x80\xffN.']
    + [b'N.', b'].', b').', b'}.}.', b'\x80\x02N', b'\x80\x02}..', b'\x80\x02NN.', b'\x80\x02(.', b'(dp0\n.', b'}}.'],
)
def test_hostile_programs_are_refused(pickled, container, tmp_path):
    refused(files.packed(container, pickled, DATA, tmp_path / 'x'))


@pytest.mark.parametrize('container', files.CONTAINERS)
def test_hostile_lengths_meet_a_limit(container, tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_machine, 'MAX_OPCODES', 10_000)
    path = files.packed(container, program(b'N0' * 5_000 + b'}'), {}, tmp_path / 'x')
    refused(path, 'more than 10000 opcodes')
    monkeypatch.setattr(pickle_machine, 'MAX_BYTES', 1_000)
    refused(path, {'zip': 'too large', 'legacy': 'at most 1000 in all'}[container])
