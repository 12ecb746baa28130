import numpy as np
import pytest
from known_videos import freezing, noisy, panning

from st2v_jax.metrics.stagnation import block_changes, stagnation

pytest.importorskip('cv2')


def test_share_and_longest_run_are_counted():
    changes = np.array([9, 0, 9, 0, 0, 0, 9, 9, 0, 0])
    assert stagnation(changes) == {'share': 0.6, 'longest': 3, 'start': 3}
    assert stagnation(np.full(4, 9)) == {'share': 0, 'longest': 0, 'start': -1}
    assert stagnation(np.zeros(4)) == {'share': 1, 'longest': 4, 'start': 0}
    with pytest.raises(ValueError, match='at least two frames'):
        stagnation(np.array([]))


def test_a_longer_freeze_is_more():
    found = [stagnation(block_changes(freezing(panning(12), strength))) for strength in (0, 1, 3, 6, 11)]
    assert [x['longest'] for x in found] == [0, 1, 3, 6, 11]
    assert [x['share'] for x in found] == [n / 11 for n in (0, 1, 3, 6, 11)]
    assert [x['start'] for x in found] == [-1, 10, 8, 5, 0]


def test_noise_is_no_motion_and_a_small_object_is():
    still = np.repeat(panning(1), 6, 0)
    assert stagnation(block_changes(noisy(still, 2)))['share'] == 1
    with_dot = still.copy()
    for i in range(6):
        with_dot[i, 30:36, 10 + 2 * i : 16 + 2 * i] = 255
    assert (
        np.abs(np.diff(with_dot.astype(float), axis=0)).mean() < 2 and stagnation(block_changes(with_dot))['share'] == 0
    )


@pytest.mark.parametrize('size', [(5, 5), (8, 9), (3, 40)])
def test_frames_of_any_size_have_blocks(size):
    dark, bright = np.zeros((2, *size, 3), np.uint8)
    assert block_changes([dark, bright + 100]) == pytest.approx(100)
