"""Cuts are found where videos were spliced, and nowhere else."""

import numpy as np
import pytest
from known_videos import panning

from st2v_jax.metrics.cuts import Cuts, cuts

pytest.importorskip('cv2')
pytest.importorskip('scenedetect')


def spliced(*lengths):
    """Scenes of these lengths, of different brightness, one after the other."""
    return np.concatenate([panning(n, 1, seed=i) // (1 + 2 * (i % 2)) for i, n in enumerate(lengths)])


@pytest.mark.parametrize(('lengths', 'found'), [((40,), []), ((20, 20), [20]), ((16, 17, 18), [16, 33])])
def test_cuts_are_where_scenes_were_joined(lengths, found):
    assert cuts(spliced(*lengths)) == found


def test_fast_motion_and_slow_change_are_no_cuts():
    assert cuts(panning(30, 9)) == []
    fading = np.uint8(panning(30, 1) * np.linspace(1, 0.2, 30)[:, None, None, None])
    assert cuts(fading) == []


def test_more_joins_are_more_cuts():
    counts = [len(cuts(spliced(*[20] * n))) for n in (1, 2, 3, 4, 5)]
    assert counts == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('size', [1, 7, 40])
def test_pieces_of_any_size_give_the_same_cuts(size):
    video, finder = spliced(18, 22), Cuts()
    for i in range(0, len(video), size):
        finder.add(video[i : i + size])
    assert finder.result() == [18]
