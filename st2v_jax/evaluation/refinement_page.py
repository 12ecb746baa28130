"""The page about refinement, docs/refinement.md, from stored JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from st2v_jax.evaluation.pages import head, pictures, runs, table

STUDY = 'st2v evaluate refine'  # which writes the results that the page is made of, with these keys
NEEDS = ('made', 'generated', 'world')
NAMES = {
    'input': 'input, enlarged',
    'B': 'B: independent chunks',
    'B+S': 'B+S: shared noise',
    'paper': 'randomized blending (paper)',
    'release': 'randomized blending (release)',
    'truth': 'ground truth',
}
SETS = {'generated': 'Generated videos', 'world': 'Ground-truth videos'}
PAPER = {'B': 8.72, 'B+S': 6.01, 'paper': 3.32}  # standard deviation of the flow in the paper, at 720 pixels


def page(results: dict[str, Any], training: Sequence[dict[str, Any]] = (), folder: str = '.') -> str:
    """The page as Markdown.

    Args:
      results: results.json of st2v evaluate refine.
      training: summary.json of the training runs, in order.
      folder: of the pictures, relative to the page.
    """
    lines = [*_head(results), *runs(training)]
    for name, title in SETS.items():
        if name in results:
            lines += _set(title, results[name], folder)
    return '\n'.join(lines)


def _head(results):
    made = results['made']
    small, large = made['size']
    return head(
        'Refinement with randomized blending',
        'refinement-report',
        made,
        f'{made["videos"]} videos of {made["frames"]} frames, refined from {small} to {large} pixels',
        'All variants have the same videos, captions and random keys. The numbers are defined in '
        'evaluation/comparison.py, `measured`. Each mean is followed by its standard error over the videos.',
    )


def _set(title, found, folder):
    kinds = found['kinds']
    columns = {
        'flow_deviation': 'deviation of flow',
        'flow': 'flow',
        'border_ratio': 'border ratio',
        'change': 'change',
        'sharpness': 'sharpness',
        'psnr_input': 'PSNR to input',
        'psnr_truth': 'PSNR to truth',
    }
    columns = {name: text for name, text in columns.items() if name in kinds['input']}
    rows = [[NAMES[kind], *[_mean(values[name]) for name in columns]] for kind, values in kinds.items()]
    lines = [f'## {title}', '', *table(['', *columns.values()], rows)]
    if title == SETS['generated']:
        ours = ', '.join(f'{kind} {np.mean(kinds[kind]["flow_deviation"]):.2f}' for kind in PAPER if kind in kinds)
        said = ', '.join(f'{kind} {value:.2f}' for kind, value in PAPER.items())
        lines += [
            f'The paper reports these deviations of the flow, with RAFT at 720 pixels: {said}. Here they are {ours}, '
            'with DIS.',
            '',
        ]
        if np.mean(kinds['input']['border_ratio']) > 1:
            lines += [
                'The input has a border ratio above 1, because each border of two refined chunks (24 frames with an '
                'overlap of 8) is also a border of two chunks of the streaming stage. A smaller ratio means that '
                'refinement smooths these borders.',
                '',
            ]
    return [*lines, *pictures(found, folder)]


def _mean(values):
    """The mean over videos and its standard error; a dash if nothing differs, as for the truth and itself."""
    values = np.asarray(values, float)
    if not np.isfinite(values).all() or values.min() > 90:  # above 90 dB nothing differs
        return '-'
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f'{values.mean():.2f} ± {error:.2f}'
