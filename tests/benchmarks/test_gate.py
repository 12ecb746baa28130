"""The limits of the gate are those of the stored study, whose figures are on the page, and its scenes are as named."""

import json
import re
from pathlib import Path

import gate as study
import jax
import numpy as np
import pytest

from st2v_jax.evaluation import survey
from st2v_jax.streaming import gate

DOCS = Path(__file__).parents[2] / 'docs'


@pytest.fixture(scope='module')
def stored():
    return json.loads((DOCS / 'evaluation' / 'gate.json').read_text('utf-8'))


def total(groups, *names):
    """(flagged, chunks) of the kinds that count."""
    some = [share for name in names for kind, share in groups[name].items() if kind not in study.WEAK]
    return sum(share['flagged'] for share in some), sum(share['chunks'] for share in some)


def test_limits_are_those_of_the_first_seed(stored):
    assert stored['limits']['fixed'] | {'not_finite': 0.0} == gate.LIMITS == stored['limits']['in use']


def test_on_the_other_seed_95_of_100_defects_are_found_and_2_of_100_true_chunks_flagged_at_most(stored):
    groups = stored['seeds'][str(study.REPORTED_ON)]
    false, true = total(groups, 'true')
    found, wrong = total(groups, *gate.LIMITS)
    assert false <= 0.02 * true and found >= 0.95 * wrong and min(true, wrong) > 500
    text = (DOCS / 'gate.md').read_text('utf-8')
    assert f'{found:,} of {wrong:,}' in text and f'{false} of {true:,}' in text
    rows = dict(re.findall(r'^\| ([^|]+) \| (\d+ of \d+) \|', text, re.M))
    for group in groups.values():
        for kind, share in group.items():
            assert rows[kind] == f'{share["flagged"]} of {share["chunks"]}', kind


def test_limits_find_the_share_that_they_are_to_find():
    scores = np.linspace(1, 101, 101)
    kinds = lambda score: {name: {'a': {name: score}, study.WEAK[0]: {name: 0.0}} for name in gate.LIMITS}
    found = study.limits([{'scores': kinds(score)} for score in scores])
    assert found == dict.fromkeys(('still', 'cut', 'colour', 'saturation'), 4.0)


@pytest.mark.slow
def test_speeds_show_the_same_scene_faster_slower_or_still():
    scenes = survey.many_scenes(3, np.arange(6, dtype=np.int32))
    for number in range(6):
        scene = jax.tree.map(lambda leaf, i=number: np.asarray(leaf)[i], scenes)
        plain, slow = study.clip(scene, 0), study.clip(scene, 0, 1 / 4)
        assert (
            np.abs(slow[::4].astype(int) - plain[:4]).mean() < 0.5 < np.abs(slow[::4].astype(int) - plain[4:8]).mean()
        )
        assert (np.diff(study.clip(scene, 40, 0).astype(int), axis=0) == 0).mean() > 0.99
