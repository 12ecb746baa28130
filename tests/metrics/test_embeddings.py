import numpy as np
import pytest

from st2v_jax.metrics.embeddings import cosines, frame_similarity, text_scores


def turned(degrees):
    return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], -1)


def test_a_score_is_a_hundred_times_the_cosine_whatever_the_lengths():
    frames = turned(np.array([0, 60, 90, 180])) * [[1], [5], [0.1], [100]]
    np.testing.assert_allclose(text_scores(frames, [7, 0]), [100, 50, 0, -100], atol=1e-12)


def test_each_frame_may_have_its_own_text():
    np.testing.assert_allclose(text_scores(turned(np.array([10, 80])), turned(np.array([10, 20]))), [100, 50])


def test_frames_that_turn_evenly_stay_near_the_next_and_leave_the_first():
    alike = frame_similarity(turned(np.array([0, 30, 60, 90])))
    np.testing.assert_allclose(alike['next'], [np.sqrt(3) / 2] * 3)
    np.testing.assert_allclose(alike['first'], [1, np.sqrt(3) / 2, 0.5, 0], atol=1e-12)
    with pytest.raises(ValueError, match='at least two frames, got 1'):
        frame_similarity(turned(np.array([0])))


@pytest.mark.parametrize('bad', [[0, 0], [np.nan, 1], [np.inf, 1]])
def test_an_embedding_without_direction_is_refused(bad):
    with pytest.raises(ValueError, match='one has no direction'):
        cosines([1, 0], bad)
