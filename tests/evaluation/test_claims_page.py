"""Verdicts about claims follow one rule from the numbers of every video."""

import json

import numpy as np
import pytest

from st2v_jax.cli.run import main
from st2v_jax.evaluation import claims_page as page
from st2v_jax.evaluation import intervals

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(intervals, 'RESAMPLES', 200)


def around(mean, spread=0.01, count=64):
    return list(mean + spread * RANDOM.standard_normal(count))


def made(**more):
    about = {'date': '2026-01-01', 'device': 'cpu', 'jax': '1', 'dtype': 'float32', 'command': 'st2v x', 'frames': 240}
    return about | {'prompts': ['a'] * 64} | more


def methods(**numbers):
    """Stored JSON of two methods; {name: (mean of the first, mean of the second)}."""
    of = lambda i: {'numbers': {name: around(means[i]) for name, means in numbers.items()}}
    return {'made': made(), 'methods': {'A': of(0), 'B': of(1)}}


MEMORIES = {'scuts': (0, 1), 'mawe': (1, 2), 'border_ratio': (1.0, 1.4), 'flow_240': (1, 0.7), 'motion_240': (1, 0.8)}


def summary(text):
    """{(number of the claim, what is compared): (pairs, for, open, against, verdict)}"""
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines() if line.startswith('| ')]
    return {
        (row[0][0], row[1]): (*map(int, row[2:6]), row[6].strip('*'))
        for row in rows
        if len(row) == 7 and row[2] != 'pairs' and row[0][:1].isdigit()
    }


@pytest.mark.parametrize(
    ('changes', 'verdict'),
    [
        ({}, 'holds'),
        ({'mawe': (2, 2)}, 'not decided here'),
        ({'mawe': (3, 2)}, 'does not hold'),
        ({'border_ratio': (0.6, 1.1)}, 'does not hold'),
        ({'border_ratio': (0.9, 1.4)}, 'holds'),
        ({'flow_240': (1.5, 0.7)}, 'does not hold'),
        ({'motion_240': (0.7, 0.8)}, 'does not hold'),
    ],
)
def test_a_claim_holds_if_every_interval_is_on_its_side_and_fails_if_one_is_on_the_other(changes, verdict):
    text = page.page({'memories.json': methods(**MEMORIES | changes)})
    assert summary(text)['1', 'A against B'][-1] == verdict
    assert 'memories-frames.jpg' in text and 'st2v x' in text


def test_what_is_not_stored_is_not_decided():
    found = summary(page.page({}))
    assert len(found) == 6 and set(found.values()) == {(0, 0, 0, 0, 'not decided here')}


@pytest.mark.parametrize(('end', 'verdict'), [(0.98, 'holds'), (0.95, 'not decided here'), (0.7, 'does not hold')])
def test_a_long_video_may_lose_no_more_than_its_margin(end, verdict):
    numbers = {f'{name}_{place}': (1, 1) for name in ('identity', 'all', 'flow', 'size') for place in (240, 1200)}
    stored = methods(**numbers | {'identity_1200': (end, 1)})
    stored['made']['frames'] = 1200
    found = summary(page.page({'long.json': stored}))
    assert found['4', 'A, frame 1,200 against 240'][-1] == verdict
    assert found['2', 'A against B'][-1] != 'holds'


def test_all_is_read_from_one_folder_and_another_file_is_one_line(tmp_path, capsys):
    hard = {name: around(0.9) for name in ('back', 'identity', 'colour', 'shape', 'pattern', 'size', 'ground')}
    worse = hard | {name: around(0.5) for name in ('back', 'identity', 'pattern')}
    kinds = {kind: {'truth': hard, 'A': hard, 'B': worse, 'others': worse} for kind in page.KINDS}
    blended = {kind: {'flow_deviation': around(level), 'border_ratio': around(level)}
               for level, kind in ((3, 'input'), (3, 'B'), (2, 'B+S'), (1, 'paper'))}  # fmt: skip
    files = {
        'memories.json': methods(**MEMORIES),
        'hard-scenes.json': {'made': made(methods={'A': 'a', 'B': 'b'}), 'kinds': kinds},
        'refinement.json': {
            'made': made(captions=['a'] * 64),
            'generated': {'kinds': blended, 'pictures': [{'file': 'x.jpg', 'title': 'x', 'text': 'X.'}]},
        },
    }
    for name, values in files.items():
        (tmp_path / name).write_text(json.dumps(values))
    words = ['--stored', tmp_path, '--refinement', tmp_path / 'refinement.json', '--output', tmp_path / 'claims.md']
    words = ['evaluate', 'claims-report', *map(str, words)]
    assert main(words) == 0
    found = summary((tmp_path / 'claims.md').read_text())
    assert found['6', 'A against B'] == (64, 9, 0, 0, 'holds') and found['1', 'A against B'][0] == 64
    assert {key: row[-1] for key, row in found.items() if key[0] == '3'} == dict.fromkeys(
        [
            ('3', f'{page.NAMES[a]} against {page.NAMES[b]}')
            for a, b in (('B+S', 'B'), ('paper', 'B'), ('paper', 'B+S'))
        ],
        'holds',
    )
    (tmp_path / 'memories.json').write_text(json.dumps({'made': {}, 'methods': {'A': {}, 'B': {}}}))
    capsys.readouterr()
    assert main(words) == 2
    assert capsys.readouterr().err.count('\n') == 1
