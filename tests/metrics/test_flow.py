import numpy as np
import pytest
from known_videos import panning, texture

from st2v_jax.metrics.flow import farneback, flow, flow_length, flows


def test_length_is_the_mean_over_all_pixels():
    vectors = np.zeros((2, 4, 5, 2), np.float32)
    vectors[1] = 3, 4
    assert list(flow_length(vectors)) == [0, 5] and flow_length(vectors[1]) == pytest.approx(5)


@pytest.mark.parametrize('estimate', [flow, farneback])
@pytest.mark.parametrize('shift', [(2, 0), (0, -3), (-4, 3)])
def test_estimates_agree_on_the_shift_of_a_picture(estimate, shift):
    pytest.importorskip('cv2')
    wide, (x, y) = texture(96, 96), shift
    first, second = wide[16:80, 16:80], wide[16 - y : 80 - y, 16 - x : 80 - x]
    middle = estimate(first, second)[12:-12, 12:-12]
    np.testing.assert_allclose(np.median(middle, (0, 1)), shift, atol=0.15)


def test_flows_are_those_of_each_pair_by_any_estimate():
    video = panning(5, 1, 16)
    difference = lambda a, b: (b.astype(np.float32) - a)[..., :2]
    np.testing.assert_array_equal(flows(video, difference), np.diff(video.astype(np.float32), axis=0)[..., :2])
    with pytest.raises(ValueError, match='at least two frames, got 1'):
        flows(video[:1])
