"""What pages have in common: each is a pure function of stored JSON, so that every figure on it can be traced."""

import json
import os
from pathlib import Path


def write(page, results, training, output):
    """Writes page(results, training, folder) as Markdown, of JSON files alone; folder is that of results and pictures.

    page: `model_page.page` or `refinement_page.page`. results: results.json of a study. training: summary.json of the
    training runs, in order.
    """
    read = lambda path: json.loads(Path(path).read_text(encoding='utf-8'))
    folder = os.path.relpath(Path(results).parent, Path(output).parent)
    text = page(read(results), [read(path) for path in training], Path(folder).as_posix())
    Path(output).write_text(text, encoding='utf-8')
    print(f'page: {output}')


def head(title, verb, made, videos, notes):
    """Markdown lines: how the page is written, and how what it shows was made.

    verb: of `st2v evaluate`, which writes the page. made: as `record.made` begins it. videos: what was made, in words.
    notes: what else there is to say.
    """
    settings = ', '.join(f'{name} {value}' for name, value in made['settings'].items())
    return [
        f'# {title}',
        '',
        f'Written by `st2v evaluate {verb}` from stored results; do not edit.',
        '',
        f'{videos} {made["date"]} on {made["device"]} (jax {made["jax"]}, {made["dtype"]}) in {made["seconds"]:.0f} s '
        'by',
        '',
        f'    {made["command"]}',
        '',
        f'Settings: {settings}. {notes}',
        '',
    ]


def table(header, rows):
    """Markdown lines of a table; the first column is text, the others are numbers."""
    cells = lambda row: '| ' + ' | '.join(str(cell) for cell in row) + ' |'
    return [cells(header), cells(['---', *['---:'] * (len(header) - 1)]), *map(cells, rows), '']


def percent(share):
    return f'{100 * share:.1f} %'


def runs(training):
    """Markdown lines: how weights were made, from the summaries of training runs."""
    if not training:
        return []
    lines = ['## How the weights were made', '']
    rows = [
        [
            run['stage'],
            run['date'],
            f'{run["devices"]} x {run["device"]}',
            f'{run["steps"]:,}',
            run['batch_size'],
            f'{run["seconds"]:.0f}',
            _last(run['last']),
        ]
        for run in training
    ]
    lines += table(['stage', 'date', 'devices', 'steps', 'batch', 'seconds', 'last metrics'], rows)
    return [*lines, 'Commands, in this order:', '', *[f'    {run["command"]}' for run in training], '']


def _last(metrics):
    hidden = ('step', 'step_seconds', 'progress')
    return ', '.join(f'{name} {value:.4g}' for name, value in metrics.items() if name not in hidden)


def pictures(results, folder):
    """Markdown lines: each of results['pictures'] under its text."""
    lines = []
    for picture in results['pictures']:
        lines += [picture['text'], '', f'![{picture["title"]}]({folder}/{picture["file"]})', '']
    return lines
