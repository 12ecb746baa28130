"""The page about refinement: a pure function of stored JSON, so that every figure on it can be traced."""

import numpy as np

from st2v_jax.evaluation.pages import head, pictures, runs, table

NAMES = {
    'input': 'input, enlarged',
    'B': 'B: chunks on their own',
    'B+S': 'B+S: shared noise',
    'paper': 'randomized blending (paper)',
    'release': 'randomized blending (release)',
    'truth': 'ground truth',
}
SETS = {'generated': 'Generated videos', 'world': 'Videos of the world'}
PAPER = {'B': 8.72, 'B+S': 6.01, 'paper': 3.32}  # standard deviation of flow magnitudes, at 720 pixels


def page(results, training=(), folder='.'):
    """Markdown of `results` (st2v evaluate refine) and of training summaries; folder: where the pictures are."""
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
        f'{made["videos"]} videos of {made["frames"]} frames, {small} to {large} pixels, refined',
        'Every variant has the same videos, captions and keys. What each number is: evaluation/comparison.py, '
        '`measured`. Behind each mean is its standard error over videos.',
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
            f'The paper saw a deviation of flow magnitudes of {said} with RAFT at 720 pixels; here it is {ours} '
            'with DIS.',
            '',
        ]
        if np.mean(kinds['input']['border_ratio']) > 1:
            lines += [
                'The input has a border ratio above 1: where chunks of 24 frames that overlap by 8 end, a chunk of the '
                "streaming stage ends too. A ratio below the input's means that refinement smooths those borders.",
                '',
            ]
    return [*lines, *pictures(found, folder)]


def _mean(values):
    """The mean over videos and its standard error; a dash where there is none, such as the truth's own error."""
    values = np.asarray(values, float)
    if not np.isfinite(values).all() or values.min() > 90:  # nothing differs: 100 dB and more
        return '-'
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f'{values.mean():.2f} ± {error:.2f}'
