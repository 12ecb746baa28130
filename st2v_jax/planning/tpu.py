"""Programs compiled for a TPU on a machine without one: by libtpu, which holds TPU's own compiler, from shapes alone.

Memory and collectives are those of the program that would run. How long it would run is not known.
"""

import functools
import math
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from st2v_jax.checkpoint import abstract
from st2v_jax.errors import BadInput
from st2v_jax.planning.programs import Program

GIB = 2**30
# GiB that libtpu 0.0.42 lets a program use of what jax calls a device there: a chip, or one of a v4's two cores.
MEMORY = {'v4': 15.25, 'v5e': 15.75, 'v5p': 95.74, 'v6e': 31.25}
KINDS = 'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute'
UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


class Target(NamedTuple):
    """Chips of a TPU.

    Attributes:
      kind: a key of MEMORY.
      chips: their devices, for meshes and shardings.
    """

    kind: str
    chips: tuple[Any, ...]

    @property
    def memory(self) -> int:
        """Bytes that a program may use on each."""
        return int(MEMORY[self.kind] * GIB)


def target(name: str) -> Target:
    """The chips of a slice such as 'v5e:2x4' or 'v5p:2x2x1'. Raises BadInput for one that does not exist."""
    kind, _, sides = name.partition(':')
    if kind not in MEMORY or not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){1,2}', sides):
        raise BadInput(f'a target is {", ".join(MEMORY)} and its chips, such as v5e:2x4 or v5p:2x2x1, not {name!r}')
    try:
        return Target(kind, tuple(topologies.get_topology_desc(platform='tpu', topology_name=name).devices))
    except jax.errors.JaxRuntimeError as error:
        raise BadInput(f'there is no TPU {name}: {str(error).splitlines()[0]}') from error


class Collective(NamedTuple):
    """What the chips exchange in a run of a program, of one kind.

    Attributes:
      count: how often.
      bytes: of the arrays on each chip: of what is summed (and scattered), of what is gathered, of what arrives.
    """

    count: int
    bytes: int


@dataclass(frozen=True)
class Compiled:
    """What a program takes on each chip; only seconds, total and fits are known of one that does not fit.

    Attributes:
      seconds: that compiling took.
      fits: whether the compiler found room for it.
      total: bytes in use at its peak: arguments, outputs, temporaries and its own code.
      arguments, outputs, temporary: bytes; an output that takes the place of an argument counts as an argument.
      collectives: by kind.
    """

    seconds: float
    fits: bool
    total: int
    arguments: int | None = None
    outputs: int | None = None
    temporary: int | None = None
    collectives: dict[str, Collective] | None = None


def compiled(lowered: jax.stages.Lowered) -> Compiled:
    """Compiles a program that was lowered for the chips of a Target."""
    began = time.monotonic()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        wanted = wanted_bytes(str(error))
        if wanted is None:
            raise
        return Compiled(time.monotonic() - began, False, wanted)
    seconds, memory = time.monotonic() - began, program.memory_analysis()
    arguments, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = arguments + outputs + temporary + memory.generated_code_size_in_bytes
    return Compiled(seconds, True, total, arguments, outputs, temporary, collectives(program.as_text()))


def lowered(program: Program, place: jax.sharding.Sharding) -> jax.stages.Lowered:
    """A program of a video, lowered for chips that each hold all of its arguments and what is `beside` it."""
    given = (program.beside, program.arguments)
    given = abstract(given, jax.tree.map(lambda _: place, given))
    # Unused arguments are kept: the parameters of all networks stay on the chips.
    run = jax.jit(lambda beside, arguments: program.function(*arguments), keep_unused=True)
    return run.lower(*given)


def on_one_chip(target: Target) -> SingleDeviceSharding:
    """The sharding of arrays on the first chip."""
    return SingleDeviceSharding(target.chips[0])


def wanted_bytes(error: str) -> int | None:
    """How much memory a program wants, of which the compiler's error says that it is too much; None for another one."""
    found = re.search(r'\(([\d.]+)([KMGT]?)\) exceeds available|Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm', error)
    if 'RESOURCE_EXHAUSTED' not in error or found is None:
        return None
    number, unit = found.groups()[:2] if found[1] else found.groups()[2:]
    return int(float(number) * UNITS[unit])


def collectives(text: str) -> dict[str, Collective]:
    """The Collectives in the text of a compiled program, by kind; those in a loop count for each of its rounds."""
    places, calls, found = _computations(text), defaultdict(list), []
    for place, lines in places.items():
        for line in lines:
            if loop := re.search(r' condition=%([\w.-]+), body=%([\w.-]+)', line):
                calls[loop[2]].append((place, _rounds(places[loop[1]])))
            for names in re.findall(r' (?:calls|branch_computations)=(%[\w.-]+|\{[^}]*\})', line):
                for name in re.findall(r'%([\w.-]+)', names):
                    calls[name].append((place, 1))
            if moved := re.match(rf'\s+(?:ROOT )?%\S+ = (\(.*?\)|\S+) ({"|".join(KINDS)})(-start)?\(', line):
                found.append((place, *moved.groups()))

    @functools.cache
    def runs(place):
        return sum(runs(caller) * rounds for caller, rounds in calls[place]) if place in calls else 1

    sums = {}
    for place, shapes, kind, start in found:
        arrays = re.findall(r'([a-z]+\d*)\w*\[([\d,]*)\]', shapes)
        if start and kind != 'all-reduce':  # the operands, the results, and what the start keeps
            arrays = [array for array in arrays if array[1]]
            arrays = arrays[len(arrays) // 2 :]
        if place.startswith('all-reduce-scatter'):  # a fusion of TPU's
            kind = 'reduce-scatter'
        size = sum(_bits(dtype) * math.prod(map(int, filter(None, sizes.split(',')))) for dtype, sizes in arrays) // 8
        before = sums.get(kind, Collective(0, 0))
        sums[kind] = Collective(before.count + runs(place), before.bytes + size * runs(place))
    return sums


def _computations(text):
    """{name: lines} of the computations in the text of a program."""
    places, lines = {}, []
    for line in text.splitlines():
        if header := re.match(r'(?:ENTRY )?%([\w.-]+) \(.*\{$', line):
            lines = places[header[1]] = []
        else:
            lines.append(line)
    return places


def _rounds(condition):
    """How often a loop runs whose condition has these lines: jax counts from 0 to a constant. 1 for any other loop."""
    bounds = [int(found[1]) for line in condition if (found := re.search(r' constant\((\d+)\)', line))]
    return bounds[0] if len(bounds) == 1 and any('direction=LT' in line for line in condition) else 1


def _bits(dtype):
    return 8 if dtype == 'pred' else int(re.sub(r'\D', '', dtype))
