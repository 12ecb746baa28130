"""Compares kernels with their XLA forms on the device of this machine: errors and times for all shapes of a size.

    python benchmarks/kernels.py [--size full small tiny] [--only frame_attention] [--seconds 140] [--json out.json]

Errors are relative, in norm, to the XLA form in float32 on the same bfloat16 inputs; and XLA in bfloat16 has a row.
Each way of cutting a kernel is compiled and timed on its own, and one that fails is reported and passed over. Times are
of the device: a program runs the operation some times in a row, each time on inputs that depend on the result before.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import probes  # makes st2v_jax importable

from st2v_jax.kernels import frame_attention, gated_product

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


class Case(NamedTuple):
    """A kernel on one shape: its inputs, its XLA form, and its cuts by name."""

    kernel: str
    shape: tuple[int, ...]
    inputs: tuple[jax.Array, ...]
    xla: Callable
    cuts: dict[str, Callable]


def numbers(*shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Random bfloat16 arrays, made on the device."""
    return tuple(jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i, shape in enumerate(shapes))


def attention_case(shape: tuple[int, ...]) -> Case | None:
    """Attention over frames on x of this shape, or None if the kernel is not for it."""
    heads = max(1, shape[-1] // frame_attention.HEAD)
    if not frame_attention.fits(jax.ShapeDtypeStruct(shape, jnp.bfloat16), heads):
        return None
    rows, cut = shape[1] * frame_attention._pixels(shape[1]), frame_attention.Tiling
    cuts = [cut(), cut(128), cut(chain=heads, depth=2), cut(warpgroups=2), cut(128, chain=heads)]
    return Case(
        'frame_attention',
        shape,
        numbers(shape, shape, shape),
        lambda q, k, v: frame_attention.with_xla(q, k, v, heads),
        {
            named(c): lambda q, k, v, c=c: frame_attention.with_kernel(q, k, v, heads, c)
            for c in dict.fromkeys(cuts)
            if rows % (c.queries * c.warpgroups) == 0 and shape[1] % c.warpgroups == 0
        },
    )


def product_case(shape: tuple[int, ...]) -> Case | None:
    """A feed-forward's first product on x of this shape, or None if the kernel is not for it."""
    c = shape[-1]
    x, kernel, bias = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in (shape, (c, 8 * c), (8 * c,)))
    if not gated_product.fits(x, kernel):
        return None
    cut = gated_product.Tiling
    cuts = [
        cut(),
        cut(cluster=True),
        cut(128, 64, below=False),
        cut(128, 64, cluster=True),
        cut(steps=3),
    ]
    x, kernel, bias = numbers(x.shape, kernel.shape, bias.shape)
    return Case(
        'gated_product',
        shape,
        (x, (kernel * c**-0.5).astype(x.dtype), bias.astype(jnp.float32)),
        gated_product.with_xla,
        {named(t): lambda *given, t=t: gated_product.with_kernel(*given, t) for t in cuts},
    )


def named(tiling: tuple) -> str:
    """A cut in a few letters, such as 'queries=64 chain=1'."""
    return ' '.join(f'{name}={int(value)}' for name, value in tiling._asdict().items())


KERNELS = {'frame_attention': attention_case, 'gated_product': product_case}


def milliseconds(operation: Callable, inputs: tuple[jax.Array, ...], runs: int, blocks: int) -> float:
    """The median time of the operation on the device, without what starting a program takes."""

    def repeated(first, *rest):
        def once(_, carried):
            y = operation(carried, *rest)
            # One number of the result goes into the next input: too little to take time, enough to keep the order.
            return carried.at[(0,) * carried.ndim].set(y[(0,) * y.ndim])

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


def compared(case: Case, *, runs: int, blocks: int, until: float) -> Iterator[dict[str, Any]]:
    """A row for XLA and for each cut, until the time is up."""
    wide = tuple(x.astype(jnp.float32) for x in case.inputs)
    with jax.default_matmul_precision('highest'):
        want = np.asarray(jax.jit(case.xla)(*wide))
    del wide
    for name, operation in {'XLA': case.xla, **case.cuts}.items():
        if time.monotonic() > until:
            return
        row = {'kernel': case.kernel, 'shape': case.shape, 'cut': name}
        began = time.perf_counter()
        try:
            row['error'] = error(jax.jit(operation)(*case.inputs), want)
            row['compile_s'] = time.perf_counter() - began
            row['ms'] = milliseconds(operation, case.inputs, runs, blocks)
        except Exception as trouble:  # whatever a compiler raises; the other cuts are still worth a try
            row['failed'] = ' | '.join(str(trouble).strip().splitlines()[:3])[:400] or type(trouble).__name__
        yield row


def line(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    begin = f'{row["kernel"]:16}{"x".join(map(str, row["shape"])):18}{row["cut"]:46}'
    if 'failed' in row:
        return f'{begin}failed: {row["failed"]}'
    return f'{begin}{row["ms"]:9.4f} ms  error {row["error"]:.2e}  first call {row["compile_s"]:.1f} s'


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and stores the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', nargs='+', choices=probes.SIZES, default=['full'], help='default: full')
    parser.add_argument('--only', nargs='+', choices=KERNELS, default=list(KERNELS), help='kernels (default: all)')
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
    for shape in (shape for size in args.size for shape in SHAPES[size]):
        for name in args.only:
            case = KERNELS[name](shape) if time.monotonic() < until else None
            for row in compared(case, runs=args.runs, blocks=args.blocks, until=until) if case else ():
                rows.append(row)
                print(line(row), flush=True)
                if args.json:
                    found = {'device': device.device_kind, 'jax': jax.__version__, 'rows': rows}
                    Path(args.json).write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
