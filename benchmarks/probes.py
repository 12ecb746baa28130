"""What the benchmarks share: random parameters, timed blocks of chained steps, the rate of the device, options."""

import argparse
import contextlib
import datetime
import json
import math
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from st2v_jax.cost import flops
from st2v_jax.kernels.choice import choosing
from st2v_jax.models import build
from st2v_jax.open_model import on_device
from st2v_jax.planning import device as at_hand

SIZES = ('full', 'small', 'tiny')
FORMER_NAMES = {'released': 'full'}  # names of sizes in older records, and their present names
SHIFTS = 4096  # positions where the numbers of a parameter may begin


def random_parameters(abstract: Any, dtype: type, place: Callable = lambda array: array) -> Any:
    """Random parameters as sampling holds them: kernels in `dtype`, vectors in float32, with variance 1 / fan-in.

    All of them are cut from the same random numbers, which is faster than drawing numbers for each. Each goes through
    `place` before the next is made.
    """
    most = max((leaf.size for leaf in jax.tree.leaves(abstract)), default=0)
    numbers = np.random.default_rng(0).standard_normal(most + SHIFTS, np.float32)
    pools = {np.dtype(kind): numbers.astype(kind) for kind in (np.float32, dtype)}

    def born(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        if name.endswith('scale'):
            return jnp.ones(leaf.shape, jnp.float32)
        first = zlib.crc32(name.encode()) % SHIFTS
        pool = pools[np.dtype(dtype if leaf.ndim > 1 else np.float32)]
        fan_in = math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return jnp.asarray(pool[first : first + leaf.size].reshape(leaf.shape)) * fan_in**-0.5

    return jax.tree.map_with_path(lambda path, leaf: place(born(path, leaf)), abstract)


def placed_parameters(abstract: Any, dtype: type) -> Any:
    """`random_parameters` that lie in memory as those that sampling has loaded."""
    return build.with_biases(random_parameters(abstract, dtype, on_device(dtype)), dtype)


def block_times(
    step: Callable, state: Any, inputs: Sequence[Any], *, runs: int, blocks: int
) -> tuple[list[float], Any]:
    """Seconds per step for each block of `runs` chained steps, after a block to warm up; and the last state.

    step: (state, inputs[i]) -> state; it may donate the state.
    """
    times = []
    for _ in range(blocks + 1):
        began = time.perf_counter()
        for i in range(runs):
            state = step(state, inputs[i % len(inputs)])
        jax.block_until_ready(state)
        times.append((time.perf_counter() - began) / runs)
    return times[1:], state


def matmul_rate(n: int | None, dtype: type, *, blocks: int) -> tuple[int, float]:
    """Size n and FLOP/s of a product [n, n] x [n, n] in `dtype`, the median of the blocks; None chooses n."""
    n = n or at_hand.matmul_size()
    return n, at_hand.matmul_rate(dtype, n, blocks)


def xla_flops(compiled: jax.stages.Compiled) -> float | None:
    """The count of XLA for a compiled program in TFLOP, or None. On a GPU it may not include library calls."""
    with contextlib.suppress(NotImplementedError):
        analysis = compiled.cost_analysis() or {}
        if analysis.get('flops', 0) > 0:
            return analysis['flops'] / 1e12
    return None


def timed_step(
    step: Callable,
    fixed: tuple,
    state: Any,
    inputs: Sequence[Any],
    *,
    rate: float,
    runs: int,
    blocks: int,
    trace_dir: str | None = None,
    look: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """Compiles, chains and times a step; returns numbers by name.

    Args:
      step: (*fixed, state, inputs[i]) -> state.
      fixed: arguments that do not change.
      state: donated.
      inputs: of the steps.
      rate: FLOP/s that the share refers to.
      runs: steps of a block.
      blocks: timed blocks.
      trace_dir: folder for a profile of a few steps, or None.
      look: gets the state after the first step.
    """
    with choosing('xla'):  # products within our kernels are not seen
        work = flops(step, *fixed, state, inputs[0])
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=len(fixed)).lower(*fixed, state, inputs[0]).compile()
    compile_seconds = time.perf_counter() - began
    chained = lambda state, inputs: compiled(*fixed, state, inputs)
    if look:
        look(chained(jax.tree.map(jnp.copy, state), inputs[0]))
    times, state = block_times(chained, state, inputs, runs=runs, blocks=blocks)
    if trace_dir:
        with jax.profiler.trace(trace_dir):
            block_times(chained, state, inputs, runs=3, blocks=1)
    seconds, memory = statistics.median(times), compiled.memory_analysis()
    return {
        'ms': 1e3 * seconds,
        'ms_blocks': [1e3 * t for t in times],
        'tflop': work / 1e12,
        'tflop_xla': xla_flops(compiled),
        'share': work / seconds / rate,
        'floor_ms': 1e3 * work / rate,
        'compile_s': compile_seconds,
        'program_gib': (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
    }


def describe(title: str, what: str, numbers: dict[str, Any]) -> str:
    """A line with the numbers of `timed_step`."""
    xla = numbers['tflop_xla']
    return (
        f'{title}: {numbers["ms"]:.4g} ms {what}, {numbers["tflop"]:.4g} TFLOP'
        + (f' (XLA counts {xla:.4g})' if xla else '')
        + f', {100 * numbers["share"]:.3g} % of the matmul rate (floor {numbers["floor_ms"]:.4g} ms), '
        f'compiled in {numbers["compile_s"]:.3g} s'
    )


def peak_gib(device: jax.Device) -> float | None:
    """The most memory of the device in use so far, in GiB, or None if unknown."""
    stats = device.memory_stats() or {}
    return stats['peak_bytes_in_use'] / 2**30 if 'peak_bytes_in_use' in stats else None


def parser(description: str, *, runs: int) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument('--size', choices=SIZES, default='full', help='model size (default: %(default)s)')
    made.add_argument('--dtype', choices=('bfloat16', 'float32'), default='bfloat16', help='default: %(default)s')
    made.add_argument('--runs', type=int, default=runs, help='chained steps of a timed block (default: %(default)s)')
    made.add_argument('--blocks', type=int, default=5, help='timed blocks; the median counts (default: %(default)s)')
    made.add_argument('--json', help='file for the numbers')
    return made


def add_rate_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of benchmarks that compare with the rate of the device and can be profiled."""
    parser.add_argument('--matmul', type=int, help='size of the matrix product (default: 8192, on a CPU 1024)')
    parser.add_argument('--trace-dir', help='folder for a profile of a few steps')


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line, checked."""
    args = parser.parse_args(argv)
    if min(args.runs, args.blocks) < 1:
        parser.error(f'--runs and --blocks must be at least 1, not {args.runs} and {args.blocks}')
    return args


def setting(device: jax.Device, args: argparse.Namespace) -> dict[str, Any]:
    """What was measured, and on which device, for the JSON file."""
    return {
        'date': datetime.date.today().isoformat(),
        'device': device.device_kind,
        'jax': jax.__version__,
        'size': args.size,
        'dtype': args.dtype,
        'runs': args.runs,
        'blocks': args.blocks,
    }


def size_name(result: dict[str, Any]) -> str:
    """The present name of the size in a stored record."""
    return FORMER_NAMES.get(result['size'], result['size'])


def store(path: str | None, result: dict[str, Any]) -> None:
    """Writes the JSON file, unless path is None."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')


def write_page(page: str, begin: str, end: str, table: Callable, numbers: str | None) -> None:
    """Puts a table of the numbers in a JSON file between the two marks on a page."""
    if numbers is None:
        raise SystemExit('--page needs --json with the numbers to write')
    read = lambda: table(json.loads(Path(numbers).read_text(encoding='utf-8')))
    put_on_page(page, begin, end, read)


def put_on_page(page: str, begin: str, end: str, text: Callable[[], str]) -> None:
    """Puts text(), which begins and ends with the two marks, in the place of what is between them on a page."""
    before, found, rest = Path(page).read_text(encoding='utf-8').partition(begin)
    if not found or end not in rest:
        raise SystemExit(f'{page} has no line {end if found else begin}')
    Path(page).write_text(before + text() + rest.partition(end)[2], encoding='utf-8')
