"""Compares kernels with their XLA forms on the device of this machine: errors and times for all shapes of a size.

    python benchmarks/kernels.py [--size full small tiny] [--only frame_attention] [--seconds 140] [--json out.json]

Errors are relative, in norm, to the XLA form in float32 on the same bfloat16 inputs; both forms in bfloat16 have a row.
A form that fails is reported and passed over. Times are of the device: a program runs the operation some times in a
row, each time on inputs that depend on the result before. Shapes are printed as `WINS` in kernels/choice.py has them.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import probes  # makes st2v_jax importable

from st2v_jax.kernels.channel_moments import channel_moments
from st2v_jax.kernels.choice import choosing
from st2v_jax.kernels.frame_attention import HEAD, attention_over_frames
from st2v_jax.kernels.gated_product import gated_product

# (videos, frames, pixels, channels), most frequent first: levels of a guided step, then of the Refiner, then odd ones
SHAPES = {
    'full': [
        (2, 16, 1024, 320),
        (2, 16, 256, 640),
        (2, 16, 64, 1280),
        (2, 16, 16, 1280),
        (3, 16, 1024, 320),
        (1, 16, 1024, 320),
        (1, 24, 14400, 320),
        (1, 24, 3600, 640),
        (1, 24, 920, 1280),
        (1, 24, 240, 1280),
    ],
    'small': [(2, 16, 256, 96), (2, 16, 64, 192), (2, 16, 256, 192), (2, 16, 64, 384)],
    'tiny': [(1, 4, 64, 64), (1, 16, 24, 64), (1, 8, 24, 128), (1, 32, 8, 64)],
}
# the same where a norm reads a skip too
SKIPS = {'full': [(2, 16, 1024, 960), (2, 16, 1024, 640), (2, 16, 256, 1920), (2, 16, 256, 1280), (2, 16, 64, 2560)]}


class Case(NamedTuple):
    """A kernel on one shape: the operation that has it, and inputs in bfloat16."""

    kernel: str
    shape: tuple[int, ...]
    operation: Callable
    inputs: tuple[jax.Array, ...]


def numbers(*shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Random bfloat16 arrays, made on the device."""
    return tuple(jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i, shape in enumerate(shapes))


def attention_cases(size: str) -> Iterator[Case]:
    """Attention over frames in each level."""
    for shape in SHAPES[size]:
        attention = partial(attention_over_frames, heads=max(1, shape[-1] // HEAD))
        yield Case('frame_attention', shape, attention, numbers(shape, shape, shape))


def product_cases(size: str) -> Iterator[Case]:
    """The first product of a feed-forward in each level."""
    for b, f, p, c in SHAPES[size]:
        x, kernel, bias = numbers((b * f * p, c), (c, 8 * c), (8 * c,))
        yield Case('gated_product', x.shape, gated_product, (x, (kernel * c**-0.5).astype(x.dtype), bias))


def moments_cases(size: str) -> Iterator[Case]:
    """Moments of frames, then of whole videos, in each level."""
    moments = lambda x: jnp.stack(channel_moments(x, (1,)))
    for b, f, p, c in SHAPES[size] + SKIPS.get(size, []):
        for shape in ((b * f, p, c), (b, f * p, c)):
            yield Case('channel_moments', shape, moments, numbers(shape))


CASES = {'frame_attention': attention_cases, 'gated_product': product_cases, 'channel_moments': moments_cases}


def milliseconds(operation: Callable, inputs: tuple[jax.Array, ...], runs: int, blocks: int) -> float:
    """The median time of the operation on the device, without what starting a program takes."""

    def repeated(first, *rest):
        def once(_, carried):
            y = operation(carried, *rest)
            # One number of the result goes into the next input: too little to take time, enough to keep the order.
            return carried.at[(0,) * carried.ndim].set(y[(0,) * y.ndim].astype(carried.dtype))

        return jax.lax.fori_loop(0, runs, once, first)

    program = jax.jit(repeated, donate_argnums=0).lower(*inputs).compile()
    state, times = jnp.array(inputs[0], copy=True), []
    for _ in range(blocks + 1):
        began = time.perf_counter()
        state = jax.block_until_ready(program(state, *inputs[1:]))
        times.append((time.perf_counter() - began) / runs)
    return 1e3 * statistics.median(times[1:])


def error(got: jax.Array, want: np.ndarray) -> float:
    """The relative error in norm."""
    return float(np.linalg.norm(np.asarray(got, np.float32) - want) / np.linalg.norm(want))


def compared(case: Case, *, runs: int, blocks: int) -> Iterator[dict[str, Any]]:
    """A row for XLA's form and one for the kernel, or none if the kernel is not for this shape."""
    with choosing('kernels'):
        traced = jax.jit(case.operation).trace(*case.inputs)
        if 'mosaic_gpu' not in traced.lower(lowering_platforms=('cuda',)).as_text():
            return
    with jax.default_matmul_precision('highest'):
        want = np.asarray(jax.jit(case.operation)(*(x.astype(jnp.float32) for x in case.inputs)))
    for form in ('xla', 'kernels'):
        row = {'kernel': case.kernel, 'shape': case.shape, 'form': form}
        began = time.perf_counter()
        try:
            with choosing(form):
                row['error'] = error(jax.jit(case.operation)(*case.inputs), want)
                row['first_call_s'] = time.perf_counter() - began
                row['ms'] = milliseconds(case.operation, case.inputs, runs, blocks)
        except Exception as trouble:  # whatever a compiler raises; the other shapes are still worth a try
            row['failed'] = ' | '.join(str(trouble).strip().splitlines()[:3])[:400] or type(trouble).__name__
        yield row


def line(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    begin = f'{row["kernel"]:16}{"x".join(map(str, row["shape"])):18}{row["form"]:8}'
    if 'failed' in row:
        return f'{begin}failed: {row["failed"]}'
    return f'{begin}{row["ms"]:9.4f} ms  error {row["error"]:.2e}  first call {row["first_call_s"]:.1f} s'


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and stores the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', nargs='+', choices=probes.SIZES, default=['full'], help='default: full')
    parser.add_argument('--only', nargs='+', choices=CASES, default=list(CASES), help='kernels (default: all)')
    parser.add_argument('--runs', type=int, default=20, help='runs of a program (default: %(default)s)')
    parser.add_argument(
        '--blocks', type=int, default=5, help='timed programs; the median counts (default: %(default)s)'
    )
    parser.add_argument('--seconds', type=float, default=1e6, help='begin nothing after these (default: no limit)')
    parser.add_argument('--json', help='file for the numbers, written after each row')
    args = parser.parse_args(argv)
    until = time.monotonic() + args.seconds
    device = jax.devices()[0]
    print(f'{device.device_kind}, jax {jax.__version__}', flush=True)
    rows = []
    for case in (case for size in args.size for name in args.only for case in CASES[name](size)):
        if time.monotonic() > until:
            break
        for row in compared(case, runs=args.runs, blocks=args.blocks):
            rows.append(row)
            print(line(row), flush=True)
            probes.store(args.json, {'device': device.device_kind, 'jax': jax.__version__, 'rows': rows})
    return 0


if __name__ == '__main__':
    sys.exit(main())
