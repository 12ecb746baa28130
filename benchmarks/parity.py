"""Measures how close our modules are to the original ones on the golden cases; writes docs/parity.md and parity.json.

    ST2V_GOLDEN=<all cases> python benchmarks/parity.py [--platform cuda] [--cases g1 g5] [--output docs]

The CPU computes in float32, like the original modules when the outputs were recorded; a GPU computes in float32 with
full precision of products, and in bfloat16. Each run fills in its own columns for the cases that it checks, so a
platform can be measured in parts.
"""

import argparse
import datetime
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--platform', choices=('cpu', 'cuda'), default='cpu', help='default: %(default)s')
    parser.add_argument('--cases', nargs='+', metavar='CASE', help='beginnings of the names of cases (default: all)')
    parser.add_argument(
        '--output', type=Path, default=ROOT / 'docs', help='folder for the page and its JSON (default: docs)'
    )
    return parser.parse_args()


def measure(folder: Path, platform: str, wanted: list[str] | None) -> dict[str, dict | None]:
    """Returns {case: {what: {column: error, 'tolerance': tolerance}}}, with None for a case without a check."""
    import golden_cases
    import jax.numpy as jnp

    columns = {platform: jnp.float32} | ({'cuda bfloat16': jnp.bfloat16} if platform == 'cuda' else {})
    found = {}
    for case in golden_cases.cases(folder):
        if wanted and not case.name.startswith(tuple(wanted)):
            continue
        rows = {}
        for column, dtype in columns.items():
            errors = golden_cases.check(case, dtype)
            for what, (error, tolerance) in (errors or {}).items():
                rows.setdefault(what, {'tolerance': tolerance})[column] = error
        found[case.name] = rows or None
        print(f'{case.name}: {len(rows)} comparisons', flush=True)
    return found


def table(report: dict) -> str:
    """The page for a report of `main`."""
    lines = ['# Parity with the original modules', '']
    for platform, run in report['runs'].items():
        versions = f'jax {run["jax"]}, flax {run["flax"]}'
        lines.append(f'- {platform}: {run["date"]}, `{run["command"]}`, {run["device"]}, {versions}')
    lines += [
        '',
        'Inputs and outputs were recorded from the original modules on a CPU in float32, with random weights at',
        'reduced size. Errors are ||ours - theirs|| / ||theirs|| unless the row says otherwise. The tolerance is for',
        'float32, with full precision of products on the GPU too. In the last column, only the networks use bfloat16.',
        '',
        '| case | what | CPU float32 | GPU float32 | tolerance | GPU bfloat16 |',
        '| --- | --- | ---: | ---: | ---: | ---: |',
    ]
    shown = lambda row, column: f'{row[column]:.1e}' if column in row else ''
    for case, rows in report['cases'].items():
        if rows is None:
            lines.append(f'| {case} | not checked yet | | | | |')
            continue
        for what, row in rows.items():
            errors = [shown(row, column) for column in ('cpu', 'cuda', 'cuda bfloat16')]
            lines.append(f'| {case} | {what} | {errors[0]} | {errors[1]} | {row["tolerance"]:.0e} | {errors[2]} |')
    return '\n'.join(lines) + '\n'


def merged(before: dict, found: dict) -> dict:
    """The cases of an earlier report, updated by this run."""
    cases = dict(before)
    for case, rows in found.items():
        old = cases.get(case) or {}
        cases[case] = rows and {what: old.get(what, {}) | row for what, row in rows.items()}
    return cases


def main() -> int:
    """Measures, stores and writes the page; returns 1 if a case exceeds its tolerance."""
    arguments = parse()
    os.environ['JAX_PLATFORMS'] = arguments.platform
    import flax
    import golden_cases
    import jax

    found = measure(golden_cases.folder(), arguments.platform, arguments.cases)
    if not found:
        sys.exit(f'there is no golden case (a folder with config.json) in {golden_cases.folder()}')
    stored = arguments.output / 'parity.json'
    report = json.loads(stored.read_text()) if stored.is_file() else {'runs': {}, 'cases': {}}
    report['runs'][arguments.platform] = {
        'date': datetime.date.today().isoformat(),
        'command': 'ST2V_GOLDEN=<all cases> python benchmarks/parity.py --platform ' + arguments.platform,
        'device': jax.devices()[0].device_kind,
        'jax': jax.__version__,
        'flax': flax.__version__,
    }
    report['cases'] = merged(report['cases'], found)
    stored.write_text(json.dumps(report, indent=1) + '\n')
    (arguments.output / 'parity.md').write_text(table(report))
    beyond = [
        name
        for name, rows in found.items()
        if rows and any(row[arguments.platform] > row['tolerance'] for row in rows.values())
    ]
    print(f'{arguments.output / "parity.md"}: {len(found)} cases; above their tolerance: {", ".join(beyond) or "none"}')
    return 1 if beyond else 0


if __name__ == '__main__':
    sys.exit(main())
