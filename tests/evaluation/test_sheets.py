"""Contact sheets and slices: sizes, positions, and what motion looks like in a slice."""

import numpy as np
import pytest

from st2v_jax.evaluation import sheets


def test_a_sheet_has_a_row_a_video_and_a_column_a_number():
    videos = [np.full((10, 16, 24, 3), value, np.float32) for value in (-1, 1, 0)]
    sheet = sheets.contact_sheet(videos, (1, 4, 10), ['a', 'b', 'a prompt much too long for so narrow a sheet'])
    assert sheet.width == 3 * (24 + sheets.GAP) + sheets.GAP
    assert sheet.height == sheets.LINE + 3 * (sheets.LINE + 16 + sheets.GAP) + sheets.GAP
    first = np.asarray(sheet)[2 * sheets.LINE : 2 * sheets.LINE + 16, sheets.GAP : sheets.GAP + 24]
    assert (first == 0).all()


@pytest.mark.parametrize('numbers', [(0, 1), (1, 11)])
def test_a_frame_number_outside_the_video_is_named(numbers):
    with pytest.raises(ValueError, match='from 1 to 10'):
        sheets.contact_sheet([np.zeros((10, 8, 8, 3))], numbers, ['x'])


def test_a_slice_of_a_still_repeats_and_of_a_pan_is_slanted():
    picture = np.random.default_rng(0).uniform(-1, 1, (8, 8, 3))
    still = sheets.slice_over_time(np.stack([picture] * 5), row=3)
    assert still.shape == (5, 8, 3) and (still == still[0]).all()
    pan = sheets.slice_over_time(np.stack([np.roll(picture, i, 1) for i in range(5)]), row=3)
    assert (pan[1, 1:] == pan[0, :-1]).all()


def test_a_slice_takes_one_direction():
    with pytest.raises(ValueError, match='one row or one column'):
        sheets.slice_over_time(np.zeros((2, 4, 4, 3)))


def test_slices_stand_in_a_grid():
    sheet = sheets.slice_sheet([np.zeros((20, 8, 8, 3))] * 5, list('abcde'), columns=2)
    assert sheet.size == (2 * (8 + sheets.GAP) + sheets.GAP, 3 * (sheets.LINE + 20 + sheets.GAP) + sheets.GAP)
