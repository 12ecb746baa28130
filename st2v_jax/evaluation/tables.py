"""Tables of measured videos, as Markdown and as CSV: one method, or several side by side."""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from st2v_jax.evaluation.intervals import Estimate, estimate, paired
from st2v_jax.evaluation.pages import table
from st2v_jax.evaluation.results import Record, numbers
from st2v_jax.storage.atomic import write_bytes

INTERVALS = 'Intervals are 95 % bootstrap intervals of the mean over videos.'
OF_A_VIDEO = ('prompt', 'chunks')  # settings that say what a video is, not how it is looked at


def write(folder: str | Path, records: Sequence[Record]) -> None:
    """Writes table.md and table.csv: a row for each video, and the means."""
    names = _columns(records)
    rows = [numbers(record) for record in records]
    summary = {name: estimate([row.get(name) for row in rows]) for name in names}
    lines = ['# Measured videos', '', *_how(records), INTERVALS, '']
    lines += table(
        ['', 'mean', '95 % interval', 'videos'],
        [[name, shown(found.mean), interval(found), found.count] for name, found in summary.items()],
    )
    if any(found.count < len(records) for found in summary.values()):
        lines += ['A video has no number where it is not finite, as the MAWE of a video that stands still.', '']
    texts = [(record['file'], record['frames'], record.get('prompt') or '') for record in records]
    lines += table(
        ['video', 'frames', *names, 'prompt'],
        [
            [_cell(file), frames, *[shown(row.get(name)) for name in names], _cell(prompt)]
            for (file, frames, prompt), row in zip(texts, rows)
        ],
    )
    values = [[*text, *[row.get(name) for name in names]] for text, row in zip(texts, rows)]
    _write(folder, 'table', lines, [['file', 'frames', 'prompt', *names], *values])


def compare(
    folder: str | Path, methods: Mapping[str, Sequence[Record]], distances: Mapping[str, Mapping] | None = None
) -> None:
    """Writes comparison.md and comparison.csv: methods side by side, and how they differ from the first on pairs.

    Args:
      folder: to write to.
      methods: {name: records}, two at least.
      distances: {name: FVD as `video_distance.distances` gives it} of the methods that have one.
    """
    first, *others = methods
    names = [name for name in _columns(methods[first]) if all(name in _columns(some) for some in methods.values())]
    pairs = {other: matched(methods[first], methods[other]) for other in others}
    lines = ['# Compared methods', '', *_how([record for some in methods.values() for record in some])]
    if different := measured_differently(methods):
        lines += [f'**Measured in different ways, so that numbers do not compare: {", ".join(different)}.**', '']
    lines += [INTERVALS, '']
    rows, sheet = [], [['number', 'method', 'mean', 'low', 'high', 'videos', 'difference', 'low', 'high', 'pairs']]
    for name in names:
        for method, records in methods.items():
            found = estimate([numbers(record).get(name) for record in records])
            change = Estimate(float('nan'), float('nan'), float('nan'), 0)
            if method != first:
                sides = zip(*[(numbers(a).get(name), numbers(b).get(name)) for a, b in pairs[method]])
                change = paired(*sides) if pairs[method] else change
            rows.append([
                name, method, shown(found.mean), interval(found), found.count,
                shown(change.mean), interval(change), change.count or '-',
            ])  # fmt: skip
            sheet.append([name, method, *found, *(change if change.count else [None] * 4)])
    lines += table(['', 'method', 'mean', '95 % interval', 'videos', f'minus {first}', '95 % interval', 'pairs'], rows)
    lines += [
        'Differences are those of pairs: videos with the same prompt, or with the same name where a prompt is unknown.',
        '',
    ]
    if distances:
        lines += _distances(distances)
    for name in names:
        lines += [f'## {name}, video by video', '']
        beside = [{_key(a): numbers(b).get(name) for a, b in pairs[other]} for other in others]
        lines += table(
            ['video', *methods],
            [
                [_cell(record.get('prompt') or record['file']), shown(numbers(record).get(name))]
                + [shown(column.get(_key(record))) for column in beside]
                for record in methods[first]
            ],
        )
    _write(folder, 'comparison', lines, sheet)


def _distances(distances):
    """Lines with the FVD of methods, for which there are no pairs and no intervals."""
    rows = [
        [method, shown(found['distance']), found['made'], found['real'], shown(found['floor']['mean'])]
        for method, found in distances.items()
    ]
    return [
        '## Frechet video distance',
        '',
        'It falls with the number of videos: compare distances of equal numbers, to the same real videos.',
        '',
        *table(['method', 'FVD', 'videos', 'real videos', 'halves of the real ones'], rows),
    ]


def measured_differently(methods: Mapping[str, Sequence[Record]]) -> list[str]:
    """The metrics that did not look at all videos in one way: at one size, with one flow, with the same weights."""
    ways = {}
    for records in methods.values():
        for record in records:
            for name, found in record['measured'].items():
                way = {key: value for key, value in found['settings'].items() if key not in OF_A_VIDEO}
                if way not in ways.setdefault(name, []):
                    ways[name].append(way)
    return [name for name, seen in ways.items() if len(seen) > 1]


def matched(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Pairs of the videos of two methods that should show the same.

    Those with one file name, unless both have prompts that differ; then those with one prompt, in the order of their
    names.
    """
    pairs, left = [], list(second)
    by_prompt = []
    for one in first:
        same = [other for other in left if stem(one) == stem(other) and _agree(one, other)]
        if same:
            pairs.append((one, same[0]))
            left.remove(same[0])
        else:
            by_prompt.append(one)
    for one in by_prompt:
        same = [other for other in left if one.get('prompt') and one['prompt'] == other.get('prompt')]
        if same:
            pairs.append((one, same[0]))
            left.remove(same[0])
    return pairs


def stem(record: Record) -> str:
    """The name of a video without its ending."""
    return os.path.splitext(record['file'])[0]


def _agree(one, other):
    return None in (one.get('prompt'), other.get('prompt')) or one['prompt'] == other['prompt']


def _key(record):
    return record['file']


def _columns(records):
    """The numbers that some video has, in the order of the instruments."""
    return list(dict.fromkeys(name for record in records for name in numbers(record)))


def _how(records):
    """Lines that say how the numbers were measured."""
    kinds = {}
    for record in records:
        for name, found in record['measured'].items():
            settings = {key: value for key, value in found['settings'].items() if key != 'prompt' and value is not None}
            said = [
                f'{key} {"x".join(map(str, value)) if isinstance(value, list) else value}'
                for key, value in settings.items()
            ]
            said += [f'{module} {version}' for module, version in found['versions'].items()]
            kinds.setdefault(name, {})[', '.join(said)] = None
    lines = [f'- {name}: {" or ".join(said)}' for name, said in kinds.items()]
    return [*lines, '']


def shown(value: float | None) -> str:
    """A number for a table, with four digits that count; a dash for none."""
    return '-' if value is None or value != value else f'{value:.4g}'


def interval(found: Estimate) -> str:
    """The interval of an estimate; a dash for none."""
    return f'{shown(found.low)} to {shown(found.high)}' if found.count else '-'


def _cell(text):
    """Text that stays in one cell of a table in Markdown."""
    return re.sub(r'\s+', ' ', text).replace('|', '\\|')


def _write(folder, name, lines, rows):
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_bytes(Path(folder, f'{name}.md'), '\n'.join(lines).encode(errors='replace'))
    text = io.StringIO(newline='')
    csv.writer(text).writerows(rows)
    write_bytes(Path(folder, f'{name}.csv'), text.getvalue().encode(errors='replace'))
