"""Writes the table of docs/tpu.md from what `st2v plan --json` has stored in a folder; it compiles nothing.

python benchmarks/tpu.py --json docs/tpu --page docs/tpu.md
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import probes

BEGIN, END = '<!-- figures of benchmarks/tpu.py -->', '<!-- end of figures -->'
GIB = 2**30


def table(plans: list[dict[str, Any]]) -> str:
    """The numbers of several runs as lines of the page."""
    lines = [
        BEGIN,
        '',
        '| for | model | target | program | GiB on a chip | of | fits | temporary | exchanged in a run, GiB | '
        'compiled, s |',
        '| --- | --- | --- | --- | ---: | ---: | --- | ---: | --- | ---: |',
    ]
    for plan in plans:
        for program in plan['programs']:
            lines.append(
                f'| {plan["for"]} | {plan["model"]} | {_target(plan)} | {program["name"]} | {_gib(program["total"])} | '
                f'{_gib(plan["memory"])} | {"yes" if program["fits"] else _helps(program)} | '
                f'{_gib(program["temporary"])} | {_exchanged(program)} | {program["seconds"]:.0f} |'
            )
    trained = [plan for plan in plans if 'held' in plan]
    if trained:
        names = list(trained[0]['held'])
        lines += [
            '',
            'What a chip holds between two training steps, in GiB:',
            '',
            f'| model | target | batch | parts | remat | {" | ".join(names)} |',
            '| --- | --- | ---: | ---: | --- |' + ' ---: |' * len(names),
        ]
        for plan in trained:
            batch, held = plan['batch'], ' | '.join(_gib(plan['held'][name]) for name in names)
            lines.append(
                f'| {plan["model"]} | {_target(plan)} | {batch["size"]} | {batch["accumulation"]} | '
                f'`{batch["remat"]}` | {held} |'
            )
    lines += ['', 'The commands:', '']
    lines += [f'    {plan["command"]}' for plan in plans]
    made = sorted({f'jax {plan["jax"]} and libtpu {plan["libtpu"]}' for plan in plans})
    return '\n'.join([*lines, '', f'They ran with {", ".join(made)}.', '', END])


def _target(plan):
    mesh = [f'{name} {size}' for name, size in plan.get('mesh', {}).items() if size > 1]
    return f'{plan["target"]}, {", ".join(mesh)}' if mesh else plan['target']


def _helps(program):
    return f'no; what helps: {program["helps"]}'


def _gib(size):
    return '' if size is None else f'{size / GIB:.4g}'


def _exchanged(program):
    moved = program['collectives'].items()
    return ', '.join(f'{kind} {_gib(sums["bytes"])} in {sums["count"]}' for kind, sums in moved)


def main(argv: list[str] | None = None) -> int:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', required=True, help='folder with the stored numbers')
    parser.add_argument('--page', required=True, help='page to write them to')
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    read = lambda: [json.loads(path.read_text(encoding='utf-8')) for path in sorted(Path(args.json).glob('*.json'))]
    probes.put_on_page(args.page, BEGIN, END, lambda: table(read()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
