import numpy as np
import pytest

from st2v_jax.metrics.faces import re_id

ANNA, BORIS, SKY = np.eye(3)


def test_the_best_match_of_consecutive_frames_counts():
    faces = [np.stack([ANNA, BORIS]), np.stack([SKY, BORIS]), SKY[None], (ANNA + SKY)[None]]
    found = re_id(faces)
    np.testing.assert_allclose(found['curve'], [1, 1, np.sqrt(0.5)])
    assert found['mean'] == pytest.approx((2 + np.sqrt(0.5)) / 3) and found['pairs'] == 3


def test_pairs_without_a_face_do_not_count():
    none = np.zeros((0, 3))
    found = re_id([ANNA[None], none, ANNA[None], ANNA[None]])
    np.testing.assert_array_equal(found['curve'], [np.nan, np.nan, 1])
    assert found['mean'] == 1 and found['pairs'] == 1
    empty = re_id([none, none])
    assert np.isnan(empty['mean']) and empty['pairs'] == 0


def test_a_face_that_changes_faster_scores_less():
    turn = lambda rate: [np.array([[np.cos(rate * i), np.sin(rate * i)]]) for i in range(8)]
    means = [re_id(turn(rate))['mean'] for rate in (0, 0.1, 0.2, 0.4, 0.8)]
    np.testing.assert_allclose(means, np.cos([0, 0.1, 0.2, 0.4, 0.8]))
