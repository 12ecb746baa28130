"""Adds up the kernels of a profile by kind: how many there are in a step, and how long they take.

    python benchmarks/denoise_step.py --trace-dir profile
    python benchmarks/kernel_kinds.py profile [--steps 6] [--json out.json]

The profile is one of --trace-dir, in which a GPU ran 6 steps. A kernel's kind follows from its name.
"""

import argparse
import collections
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import jax
import probes

KINDS = {  # in order: the first pattern found in a kernel's name says what it is
    'attention': r'sdpa|flash|fmha|mha_',
    'convolution': r'fprop|dgrad|wgrad|conv(?!ert)|implicit_gemm|cudnn|nchw|nhwc',
    'matrix product': r'gemm|nvjet|cutlass|dot|cublas|splitk',
    'reduction': r'reduce',
    'transpose': r'transpose',
    'concatenation': r'concatenate|pad',
    'slice': r'slice|gather|scatter',
    'convert': r'convert',
    'memset': r'memset',
    'copy': r'memcpy|copy',
    'elementwise': r'fusion|wrapped|loop',
}


def kernels(folder: str, plane: str) -> list[tuple[str, float]]:
    """(name, milliseconds) of each kernel that the newest profile in a folder has on devices of that name."""
    newest = max(Path(folder).rglob('*.xplane.pb'), key=lambda file: file.stat().st_mtime, default=None)
    if newest is None:
        raise SystemExit(f'kernel_kinds.py: {folder} holds no profile')
    return [
        (event.name, event.duration_ns / 1e6)
        for each in jax.profiler.ProfileData.from_file(str(newest)).planes
        if each.name.startswith(plane)
        for line in each.lines
        if not line.name.startswith(('XLA', 'Steps', 'Framework'))  # these cover kernels of other lines
        for event in line.events
    ]


def kind(name: str) -> str:
    """The kind of a kernel."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name.lower())), 'other')


def totals(found: Iterable[tuple[str, float]], steps: int) -> dict[str, dict[str, float]]:
    """{name: milliseconds and kernels of one step}, the longest first."""
    sums = collections.defaultdict(lambda: [0.0, 0])
    for name, ms in found:
        sums[name][0] += ms / steps
        sums[name][1] += 1
    longest = sorted(sums.items(), key=lambda item: -item[1][0])
    return {name: {'ms': ms, 'kernels': count / steps} for name, (ms, count) in longest}


def main(argv: list[str] | None = None) -> int:
    """Prints and stores the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='of --trace-dir')
    parser.add_argument('--steps', type=int, default=6, help='steps in the profile (default: %(default)s)')
    parser.add_argument('--plane', default='/device:GPU', help='how the device is called (default: %(default)s)')
    parser.add_argument('--json', help='file for the numbers')
    args = parser.parse_args(argv)
    found = kernels(args.folder, args.plane)
    kinds = totals(((kind(name), ms) for name, ms in found), args.steps)
    names = totals(((re.sub(r'[_.]?\d+$', '', name), ms) for name, ms in found), args.steps)
    for name, total in kinds.items():
        print(f'{name}: {total["ms"]:.2f} ms, {total["kernels"]:.0f} kernels')
    print(f'all: {sum(total["ms"] for total in kinds.values()):.2f} ms, {len(found) / args.steps:.0f} kernels')
    probes.store(args.json, {'steps': args.steps, 'kinds': kinds, 'names': names})
    return 0


if __name__ == '__main__':
    sys.exit(main())
