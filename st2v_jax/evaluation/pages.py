"""What the generated pages share. Each page is a pure function of stored JSON, so that every number can be traced."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from st2v_jax.evaluation import stored
from st2v_jax.storage.atomic import write_bytes

RUN = ('stage', 'command', 'date', 'devices', 'device', 'steps', 'batch_size', 'seconds', 'last')  # of a summary


def write(page: ModuleType, results: str | Path, training: Sequence[str | Path], output: str | Path) -> None:
    """Writes a page as Markdown, from JSON files alone.

    Args:
      page: the module `model_page` or `refinement_page`.
      results: results.json of a study; its folder also holds the pictures.
      training: summary.json of the training runs, in order.
      output: file to write.

    Raises BadInput for a file that is not what the study, or a training run, writes.
    """
    summaries = []
    for path in training:
        summaries.append(stored.read(path, 'st2v train', RUN))
        with stored.written(path, 'st2v train'):
            runs(summaries)
    folder = os.path.relpath(Path(results).parent, Path(output).parent)
    found = stored.read(results, page.STUDY, page.NEEDS)
    with stored.written(results, page.STUDY):
        text = page.page(found, summaries, Path(folder).as_posix())
    write_bytes(output, text.encode())
    print(f'page: {output}')


def head(title: str, verb: str, made: dict[str, Any], videos: str, notes: str) -> list[str]:
    """Markdown lines that say how the page is written, and how the videos on it were made.

    Args:
      title: of the page.
      verb: the study of `st2v evaluate` that writes the page.
      made: 'made' of the results, see `record.made`.
      videos: what was made, in words.
      notes: further sentences.
    """
    settings = ', '.join(f'{name} {value}' for name, value in made['settings'].items())
    return [
        f'# {title}',
        '',
        f'This page is written by `st2v evaluate {verb}` from stored results; do not edit it.',
        '',
        f'{videos} on {made["date"]} on {made["device"]} (jax {made["jax"]}, {made["dtype"]}) in '
        f'{made["seconds"]:.0f} s, by',
        '',
        f'    {made["command"]}',
        '',
        f'Settings: {settings}. {notes}',
        '',
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Markdown lines of a table; the first column is text, the others are numbers."""
    cells = lambda row: '| ' + ' | '.join(str(cell) for cell in row) + ' |'
    return [cells(header), cells(['---', *['---:'] * (len(header) - 1)]), *map(cells, rows), '']


def percent(share: float) -> str:
    """A share in percent."""
    return f'{100 * share:.1f} %'


def runs(training: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown lines that say how the weights were trained, from the summaries of the runs."""
    if not training:
        return []
    lines = ['## How the weights were trained', '']
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
    return [*lines, 'The commands, in this order:', '', *[f'    {run["command"]}' for run in training], '']


def _last(metrics):
    hidden = ('step', 'step_seconds', 'progress')
    return ', '.join(f'{name} {value:.4g}' for name, value in metrics.items() if name not in hidden)


def pictures(results: dict[str, Any], folder: str) -> list[str]:
    """Markdown lines of results['pictures']: each text with its picture."""
    lines = []
    for picture in results['pictures']:
        lines += [picture['text'], '', f'![{picture["title"]}]({folder}/{picture["file"]})', '']
    return lines
