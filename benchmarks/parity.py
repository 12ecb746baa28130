"""How close our modules come to the original ones on the golden cases, written to docs/parity.md and docs/parity.json.

    ST2V_GOLDEN=<folder of cases> python benchmarks/parity.py [--output docs]

Runs on the CPU in float32, as the recorded outputs were.
"""

import argparse
import datetime
import json
import os
import sys
from pathlib import Path

os.environ['JAX_PLATFORMS'] = 'cpu'
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import flax  # noqa: E402
import golden_cases  # noqa: E402
import jax  # noqa: E402


def measure(folder):
    """{case: {what: [error, tolerance]}}, None for a case that nothing handles."""
    return {case.name: golden_cases.check(case) for case in golden_cases.cases(folder)}


def table(report):
    """The page for a report of `main`."""
    lines = [
        '# Parity with the original modules',
        '',
        f'Measured {report["date"]} by `{report["command"]}` with jax {report["jax"]} and flax {report["flax"]},',
        'float32 on a CPU. Inputs and outputs were recorded from the original modules with random weights at reduced',
        'size. Errors are ||ours - theirs|| / ||theirs|| unless the row says otherwise.',
        '',
        '| case | what | error | tolerance |',
        '| --- | --- | ---: | ---: |',
    ]
    for case, errors in report['cases'].items():
        if errors is None:
            lines.append(f'| {case} | not handled yet | | |')
            continue
        for what, (error, tolerance) in errors.items():
            lines.append(f'| {case} | {what} | {error:.1e} | {tolerance:.0e} |')
    return '\n'.join(lines) + '\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, default=ROOT / 'docs', help='folder of parity.md and parity.json')
    output = parser.parse_args().output
    cases = measure(golden_cases.folder())
    if not cases:
        sys.exit(f'no golden case (a folder with config.json) in {golden_cases.folder()}')
    report = {
        'date': datetime.date.today().isoformat(),
        'command': 'ST2V_GOLDEN=<all cases> python benchmarks/parity.py',
        'jax': jax.__version__,
        'flax': flax.__version__,
        'cases': cases,
    }
    (output / 'parity.json').write_text(json.dumps(report, indent=1) + '\n')
    (output / 'parity.md').write_text(table(report))
    failed = [name for name, errors in cases.items() if errors and any(e > limit for e, limit in errors.values())]
    print(f'{output / "parity.md"}: {len(cases)} cases, beyond tolerance: {", ".join(failed) or "none"}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
