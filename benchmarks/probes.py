"""What the benchmarks share: random parameters, timed blocks of chained steps, the device's own rate, their options."""

import argparse
import contextlib
import datetime
import json
import math
import statistics
import sys
import time
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from st2v_jax.cost import flops
from st2v_jax.planning import device as at_hand

SIZES = ('full', 'small', 'tiny')
FORMER_NAMES = {'released': 'full'}  # of sizes, in records that were stored before they changed
SHIFTS = 4096  # places where the numbers of a parameter may begin


def random_parameters(abstract, dtype):
    """Parameters as sampling holds them (kernels in `dtype`, vectors in float32), of variance 1 / fan-in.

    All are cut from the same random numbers, so that none are drawn for each.
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

    return jax.tree.map_with_path(born, abstract)


def block_times(step, state, inputs, *, runs, blocks):
    """Seconds a step, one number a block of `runs` chained steps, after one block of warming up.

    step(state, inputs[i]) -> state; the state may be donated.
    """
    times = []
    for _ in range(blocks + 1):
        began = time.perf_counter()
        for i in range(runs):
            state = step(state, inputs[i % len(inputs)])
        jax.block_until_ready(state)
        times.append((time.perf_counter() - began) / runs)
    return times[1:], state


def matmul_rate(n, dtype, *, blocks):
    """(n, FLOP/s of the [n, n] x [n, n] product in `dtype`): the median block's. n: None for what suits the device."""
    n = n or at_hand.matmul_size()
    return n, at_hand.matmul_rate(dtype, n, blocks)


def xla_flops(compiled):
    """XLA's count for the compiled program in TFLOP (on a GPU it may leave library calls out), or None."""
    with contextlib.suppress(NotImplementedError):
        analysis = compiled.cost_analysis() or {}
        if analysis.get('flops', 0) > 0:
            return analysis['flops'] / 1e12
    return None


def timed_step(step, fixed, state, inputs, *, rate, runs, blocks, trace_dir=None):
    """Numbers by name of step(*fixed, state, inputs[i]) -> state, compiled, chained and timed; the state is donated.

    rate: FLOP/s that the share refers to. trace_dir: where a profile of a few steps goes.
    """
    work = flops(step, *fixed, state, inputs[0])
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=len(fixed)).lower(*fixed, state, inputs[0]).compile()
    compile_seconds = time.perf_counter() - began
    chained = lambda state, inputs: compiled(*fixed, state, inputs)
    times, state = block_times(chained, state, inputs, runs=runs, blocks=blocks)
    if trace_dir:
        with jax.profiler.trace(trace_dir):
            block_times(chained, state, inputs, runs=3, blocks=1)
    seconds = statistics.median(times)
    return {
        'ms': 1e3 * seconds,
        'ms_blocks': [1e3 * t for t in times],
        'tflop': work / 1e12,
        'tflop_xla': xla_flops(compiled),
        'share': work / seconds / rate,
        'floor_ms': 1e3 * work / rate,
        'compile_s': compile_seconds,
    }


def describe(title, what, numbers):
    """The line about what `timed_step` measured."""
    xla = numbers['tflop_xla']
    return (
        f'{title}: {numbers["ms"]:.4g} ms {what}, {numbers["tflop"]:.4g} TFLOP'
        + (f' (XLA counts {xla:.4g})' if xla else '')
        + f', {100 * numbers["share"]:.3g} % of the matmul rate (floor {numbers["floor_ms"]:.4g} ms), '
        f'compiled in {numbers["compile_s"]:.3g} s'
    )


def peak_gib(device):
    """Most memory of the device in use so far, in GiB; None where it does not say."""
    stats = device.memory_stats() or {}
    return stats['peak_bytes_in_use'] / 2**30 if 'peak_bytes_in_use' in stats else None


def parser(description, *, runs):
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument('--size', choices=SIZES, default='full', help='model size (default: %(default)s)')
    made.add_argument('--dtype', choices=('bfloat16', 'float32'), default='bfloat16')
    made.add_argument('--runs', type=int, default=runs, help='chained steps a timed block (default: %(default)s)')
    made.add_argument('--blocks', type=int, default=5, help='timed blocks; the median counts (default: %(default)s)')
    made.add_argument('--json', help='also write the numbers to this file')
    return made


def add_rate_options(parser):
    """The options of those that compare with the device's rate and can be profiled."""
    parser.add_argument('--matmul', type=int, help='size of the probe (default: 8192, on a CPU 1024)')
    parser.add_argument('--trace-dir', help='also write a profile of a few steps there')


def parse(parser, argv):
    """The arguments, checked."""
    args = parser.parse_args(argv)
    if min(args.runs, args.blocks) < 1:
        parser.error(f'--runs and --blocks are 1 or more, got {args.runs} and {args.blocks}')
    return args


def setting(device, args):
    """What was measured on what, for the JSON."""
    return {
        'date': datetime.date.today().isoformat(),
        'device': device.device_kind,
        'jax': jax.__version__,
        'size': args.size,
        'dtype': args.dtype,
        'runs': args.runs,
        'blocks': args.blocks,
    }


def size_name(result):
    """The size of a stored record, by its present name."""
    return FORMER_NAMES.get(result['size'], result['size'])


def store(path, result):
    """Writes the JSON where it is asked for."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')


def write_page(page, begin, end, table, numbers):
    """Puts table(numbers of the JSON file) between the two marks of a page."""
    if numbers is None:
        raise SystemExit('--page needs --json, the numbers to write')
    before, found, rest = Path(page).read_text(encoding='utf-8').partition(begin)
    if not found or end not in rest:
        raise SystemExit(f'{page} has no line {end if found else begin}')
    made = table(json.loads(Path(numbers).read_text(encoding='utf-8')))
    Path(page).write_text(before + made + rest.partition(end)[2], encoding='utf-8')
