"""What a program costs, counted from its trace: floating-point operations, memory traffic, peak memory.

The trace is cut into kernels as a fusing compiler does it. Each matrix product, convolution and attention is a kernel,
which reads and writes memory. Elementwise values are computed where they are needed; they reach memory only for a
kernel, for a reduction, or if several others read them. `planning.device` says how long a kernel takes on a device.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax.extend.core import ClosedJaxpr, Literal


@dataclass(frozen=True)
class Kernel:
    """A kernel of a program.

    Attributes:
      kind: 'product', 'convolution', 'attention', 'reduction', 'elementwise' or 'other'.
      flops, bytes: floating-point operations and memory traffic of one run.
      repeats: how many times it runs.
    """

    kind: str
    flops: int
    bytes: int
    repeats: int = 1


@dataclass(frozen=True)
class Cost:
    """What a program costs.

    Attributes:
      kernels: in the order in which they run.
      arguments: bytes of its arguments.
      temporary: the most bytes that it holds besides.
      passed: number of arguments that it reads.
    """

    kernels: tuple[Kernel, ...]
    arguments: int
    temporary: int
    passed: int

    @property
    def flops(self) -> int:
        """Floating-point operations of all kernels."""
        return sum(kernel.flops * kernel.repeats for kernel in self.kernels)


def cost(function: Callable, *args) -> Cost:
    """The Cost of function(*args); nothing is computed, so args may be jax.ShapeDtypeStruct."""
    closed = jax.make_jaxpr(function)(*args)
    walk = _Walk()
    walk.program(closed)
    read = _read(closed.jaxpr)
    passed = sum(v in read for v in closed.jaxpr.invars)
    return Cost(tuple(walk.kernels), sum(_size(v.aval) for v in closed.jaxpr.invars), walk.peak(), passed)


def _read(jaxpr):
    """The variables that a program reads; what a jitted function within it does not read does not count."""
    read = [*jaxpr.outvars]
    for equation in jaxpr.eqns:
        inner = equation.params['jaxpr'].jaxpr if equation.primitive.name in ('jit', 'pjit') else None
        inside = None if inner is None else _read(inner)
        read += [v for i, v in enumerate(equation.invars) if inside is None or inner.invars[i] in inside]
    return {v for v in read if not isinstance(v, Literal)}


def flops(function: Callable, *args) -> int:
    """Floating-point operations of function(*args): two for a multiply-add of a product, convolution or attention."""
    return cost(function, *args).flops


class _Value:
    """An array of the program; `reads` are the arrays in memory that it is computed from, or itself if it is one."""

    def __init__(self, size, reads):
        self.size, self.reads = size, reads
        self.born = self.died = 0

    @classmethod
    def held(cls, aval):
        value = cls(_size(aval), frozenset())
        value.reads = frozenset({value})
        return value


class _Walk:
    """The kernels of a program in order, and the lifetimes of the arrays between them."""

    def __init__(self):
        self.kernels, self.made, self.reduced = [], [], set()
        self.inner = {}  # kernel number -> bytes that a loop holds while it runs

    def program(self, closed):
        """Walks through a whole program, whose results stay in memory."""
        held = lambda variables: [_Value.held(v.aval) for v in variables]
        results = self.run(closed.jaxpr, held(closed.jaxpr.constvars), held(closed.jaxpr.invars))
        for value in results:
            self.materialize(value)
        for value in results:
            value.died = len(self.kernels)

    def run(self, jaxpr, constants, arguments):
        """Walks through a program and returns the values of its results."""
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments]))
        of = lambda v: _Value(0, frozenset()) if isinstance(v, Literal) else values[v]
        read = [*(v for equation in jaxpr.eqns for v in equation.invars), *jaxpr.outvars]
        uses = Counter(v for v in read if not isinstance(v, Literal))
        for equation in jaxpr.eqns:
            outs = self.step(equation, [of(v) for v in equation.invars])
            for variable, value in zip(equation.outvars, outs):
                values[variable] = value
                large = [read for read in value.reads if 2 * read.size >= value.size]
                if uses[variable] > 1 and len(large) > 1 and value not in value.reads:
                    self.materialize(value)
        return [of(v) for v in jaxpr.outvars]

    def step(self, equation, ins):
        name, params = equation.primitive.name, equation.params
        sizes = [_size(v.aval) for v in equation.outvars]
        shapes = [getattr(v.aval, 'shape', ()) for v in equation.invars], [v.aval.shape for v in equation.outvars]
        if name in _KERNELS:
            work = _KERNELS[name](params, *shapes)
            kind = {'dot_general': 'product', 'conv_general_dilated': 'convolution'}.get(name, 'other')
            return self.kernel(kind, work, ins, sizes)
        if name.startswith('dot_product_attention'):  # cuDNN's flash attention
            return self.kernel('attention', _attention_flops(params, *shapes), ins, sizes)
        if name == 'pallas_call':  # attention on a TPU: its body runs for each cell of a grid
            work = math.prod(params['grid_mapping'].grid) * _flops(ClosedJaxpr(params['jaxpr'], ()))
            return self.kernel('attention', work, ins, sizes)
        if name.startswith(_REDUCTIONS):
            return self.reduction(ins, sizes)
        if name in _GATHERS:
            return [self.copied(ins, size) for size in sizes]
        bodies = _jaxprs(params)
        if not bodies:
            reads = frozenset().union(*(value.reads for value in ins))
            return [_Value(size, reads) for size in sizes]
        if name == 'scan':
            return self.loop(bodies[0], ins, sizes, params['length'])
        if name == 'while':
            return self.loop(bodies[-1], ins[-len(sizes) :], sizes, 1)
        if name == 'cond':  # count the branch that costs most
            ins, bodies = ins[1:], [max(bodies, key=_flops)]
        (body, *_) = bodies
        return self.run(body.jaxpr, [_Value.held(v.aval) for v in body.jaxpr.constvars], ins)

    def materialize(self, value):
        """Computes a value into memory, unless it is there already."""
        if value not in value.reads:
            self.emit(Kernel('elementwise', 0, _total(value.reads) + value.size), value.reads, [value])

    def kernel(self, kind, work, ins, sizes):
        for value in ins:
            self.materialize(value)
        outs = [_Value(size, frozenset()) for size in sizes]
        self.emit(Kernel(kind, work, _total(ins) + sum(sizes)), ins, outs)
        return outs

    def reduction(self, ins, sizes):
        reads = frozenset().union(*(value.reads for value in ins))
        outs = [_Value(size, frozenset()) for size in sizes]
        # Several moments of the same arrays are taken in one pass.
        fresh = reads not in self.reduced
        self.reduced.add(reads)
        if fresh:
            self.emit(Kernel('reduction', 0, _total(reads) + sum(sizes)), reads, outs)
        else:
            self.hold(outs)
        return outs

    def copied(self, ins, size):
        for value in ins:
            self.materialize(value)
        out = _Value(size, frozenset())
        self.emit(Kernel('elementwise', 0, 2 * size), ins, [out])
        return out

    def loop(self, body, ins, sizes, length):
        for value in ins:
            self.materialize(value)
        inner = _Walk()
        inner.program(body)
        self.kernels += [dataclasses.replace(k, repeats=k.repeats * length) for k in inner.kernels]
        outs = [_Value(size, frozenset()) for size in sizes]
        self.inner[len(self.kernels)] = inner.peak()
        self.hold(outs)
        for value in ins:
            value.died = len(self.kernels)
        return outs

    def emit(self, kernel, reads, outs):
        self.kernels.append(kernel)
        for value in reads:
            value.died = len(self.kernels)
        self.hold(outs)

    def hold(self, values):
        for value in values:
            value.reads = frozenset({value})
            value.born = value.died = len(self.kernels)
        self.made += values

    def peak(self):
        """The most bytes of arrays that are in memory at the same time, without the arguments."""
        change = Counter()
        for value in self.made:
            change[value.born] += value.size
            change[value.died + 1] -= value.size
        for number, size in self.inner.items():
            change[number] += size
            change[number + 1] -= size
        most = now = 0
        for number in sorted(change):
            now += change[number]
            most = max(most, now)
        return most


def _dot_flops(params, ins, outs):
    contracted = params['dimension_numbers'][0][0]
    return 2 * math.prod(outs[0]) * math.prod(ins[0][axis] for axis in contracted)


def _convolution_flops(params, ins, outs):
    layout = params['dimension_numbers'].rhs_spec
    return 2 * math.prod(outs[0]) * math.prod(ins[1][axis] for axis in layout[1:])


def _attention_flops(params, ins, outs):
    (b, t, heads, d), s = ins[0], ins[1][1]  # q k^T, and its product with v
    return 4 * b * t * s * heads * d


def _nothing(params, ins, outs):
    return 0


_KERNELS = {
    'dot_general': _dot_flops,
    'conv_general_dilated': _convolution_flops,
    'sort': _nothing,
    'cumsum': _nothing,
    'random_bits': _nothing,
    'threefry2x32': _nothing,
}
_REDUCTIONS = ('reduce_', 'argmax', 'argmin')
_GATHERS = ('gather', 'dynamic_slice')


def _jaxprs(params):
    """The closed programs among the parameters of an equation."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if hasattr(item, 'jaxpr'):
                found.append(item)
            elif hasattr(item, 'eqns'):
                found.append(ClosedJaxpr(item, ()))
    return found


def _flops(body):
    walk = _Walk()
    walk.program(body)
    return sum(kernel.flops * kernel.repeats for kernel in walk.kernels)


def _size(aval):
    try:
        return math.prod(aval.shape) * aval.dtype.itemsize
    except (AttributeError, TypeError):  # a random key
        return 8 * math.prod(getattr(aval, 'shape', ()))


def _total(values):
    return sum(value.size for value in values)
