"""A picture that grows around its centre: the flow of a pixel is its distance from the centre times the rate."""

import numpy as np
import pytest
from known_videos import zooming

from st2v_jax.metrics import mawe, stagnation
from st2v_jax.metrics.cuts import cuts
from st2v_jax.metrics.flow import farneback, flow, flow_length, flows
from st2v_jax.metrics.ssim import ssim

pytest.importorskip('cv2')
pytest.importorskip('scenedetect')
RATES = (1.0, 1.01, 1.02, 1.03, 1.04)


def expected(rate, size=64):
    offsets = np.arange(size) - (size - 1) / 2
    return (rate - 1) * np.hypot(*np.meshgrid(offsets, offsets)).mean()


@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize(('estimate', 'near'), [(flow, 0.12), (farneback, 0.25)])
def test_the_length_of_flow_is_that_of_the_rate(rate, estimate, near):
    lengths = flow_length(flows(zooming(6, rate), estimate))
    assert lengths.mean() == pytest.approx(expected(rate), rel=near, abs=0.01)


def test_the_flow_points_away_from_the_centre():
    found = flows(zooming(2, 1.04))[0]
    assert found[8:24, :, 1].mean() < -0.3 < 0.3 < found[40:56, :, 1].mean()
    assert found[:, 8:24, 0].mean() < -0.3 < 0.3 < found[:, 40:56, 0].mean()


def test_a_zoom_is_no_cut_and_does_not_stand_still():
    assert cuts(zooming(40, 1.03)) == []
    shares = [stagnation.stagnation(stagnation.block_changes(zooming(12, rate)))['share'] for rate in (1, 1.03)]
    assert shares == [1, 0]


def test_a_zoom_that_the_flow_explains_costs_less_than_one_that_nothing_explains():
    video = zooming(12, 1.03)
    shuffled = np.concatenate([video[::2], video[1::2]])
    of = lambda frames, profile: mawe.mawe(frames, flows(frames), profile=profile)
    assert all(of(video, profile) < 5 for profile in ('paper', 'release'))
    errors = [mawe.mawe(frames, flows(video), profile='release') for frames in (video, shuffled)]
    assert errors[1] > 5 * errors[0]


def test_a_faster_zoom_leaves_the_first_frame_sooner():
    alike = [np.mean([ssim(video[0], frame) for frame in video]) for video in (zooming(8, rate) for rate in RATES)]
    assert alike == sorted(alike, reverse=True) and alike[0] == 1 and alike[-1] < 0.7
