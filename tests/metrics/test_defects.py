"""Each defect moves the metric that should see it, more with each strength."""

import numpy as np
import pytest
from known_videos import bleaching, blurring, flickering, freezing, noisy, panning, reddening

from st2v_jax.metrics import colour, mawe, stagnation
from st2v_jax.metrics.drift import drift, over_chunks
from st2v_jax.metrics.embeddings import frame_similarity, text_scores
from st2v_jax.metrics.faces import re_id
from st2v_jax.metrics.flow import farneback, flow_length, flows
from st2v_jax.metrics.frechet import frechet_distance
from st2v_jax.metrics.motion import high_frequency_change
from st2v_jax.metrics.sharpness import blur, sharpness
from st2v_jax.metrics.ssim import ssim
from st2v_jax.metrics.steadiness import border_ratio, frame_changes

pytest.importorskip('cv2')


def of_mawe(profile):
    return lambda video: mawe.mawe(video, flows(video), profile=profile)


def of_curve(measure):
    """The drift of measure(frame)."""
    return lambda video: drift([measure(frame) for frame in video])['drift']


def of_colours(video):
    colours = colour.mean_colours(video)
    return drift(colour.colour_distances(colours, colours[0]))['drift']


def of_histograms(video):
    shares = colour.histograms(video)
    return drift(colour.histogram_distances(shares, shares[0]))['drift']


def embedded(video):
    """Embeddings [f, 192] of a network that nobody trained: means of 8x8 blocks, around a middle grey."""
    blocks = video.reshape(len(video), 8, 6, 8, 6, 3).mean((2, 4)).reshape(len(video), -1)
    return blocks - 128 + 0.1


def of_frechet(video):
    return frechet_distance(embedded(panning(14, 2, 48))[:, :8], embedded(video)[:, :8])


LEVELS, PIXELS = (0, 4, 8, 16, 32), (0, 1, 2, 3, 5)
DEFECTS = {
    'flicker in MAWE': (flickering, LEVELS, of_mawe('release')),
    'flicker in the other MAWE': (flickering, LEVELS, of_mawe('paper')),
    'noise in MAWE': (noisy, LEVELS, of_mawe('release')),
    'noise in fine detail': (noisy, LEVELS, lambda video: high_frequency_change(video, flows(video)).mean()),
    'freezing in stagnation': (
        freezing,
        (0, 2, 4, 7, 10),
        lambda video: stagnation.stagnation(stagnation.block_changes(video))['share'],
    ),
    'freezing in the deviation of flow': (freezing, PIXELS, lambda video: flow_length(flows(video)).std()),
    'blur in sharpness': (blurring, PIXELS, lambda video: -of_curve(lambda frame: sharpness(frame[None]))(video)),
    'blur without a reference': (blurring, PIXELS, of_curve(blur)),
    'red in the distance of colour': (reddening, LEVELS, of_colours),
    'red in the histogram': (reddening, LEVELS, of_histograms),
    'flicker in SSIM': (flickering, LEVELS, lambda video: -np.mean([ssim(*pair) for pair in zip(video, video[1:])])),
    'red in identity': (reddening, LEVELS, lambda video: -frame_similarity(embedded(video))['first'].mean()),
    'flicker in the next frame': (flickering, LEVELS, lambda video: -frame_similarity(embedded(video))['next'].mean()),
    'red in the score of a text': (
        reddening,
        LEVELS,
        lambda video: -text_scores(embedded(video), embedded(panning(14, 2, 48))).mean(),
    ),
    'flicker in re-ID': (flickering, LEVELS, lambda video: -re_id(list(embedded(video)[:, None]))['mean']),
    'red in the Frechet distance': (reddening, LEVELS, of_frechet),
    'bleaching in colourfulness': (
        bleaching,
        (0, 0.2, 0.4, 0.7, 1),
        lambda video: -drift(colour.colourfulness(video))['drift'],
    ),
}


@pytest.mark.parametrize('defect', DEFECTS)
def test_a_stronger_defect_is_measured_as_more(defect):
    damage, strengths, number = DEFECTS[defect]
    found = [number(damage(panning(14, 2, 48), strength)) for strength in strengths]
    assert found == sorted(found) and found[0] < found[1] and found[-2] < found[-1], found


def test_a_picture_that_moves_by_whole_pixels_has_no_fault():
    video = panning(20, 2)
    assert of_mawe('release')(video) < 1 and of_mawe('paper')(video) < 1
    lengths = flow_length(flows(video))
    assert lengths.mean() == pytest.approx(2, rel=0.1) and lengths.std() < 0.05
    assert stagnation.stagnation(stagnation.block_changes(video))['share'] == 0


def test_a_video_that_slows_down_more_loses_more_of_its_motion():
    wide = panning(60, 1, 48)
    places = lambda slower: np.cumsum([0, *[4] * 7, *[4 - slower] * 6])
    curves = [flow_length(flows(wide[places(slower)], farneback)) for slower in range(5)]
    drifts = [drift(curve)['drift'] for curve in curves]
    assert drifts == sorted(drifts, reverse=True) and abs(drifts[0]) < 0.1
    assert drifts[2] == pytest.approx(-2, abs=0.4)


def test_a_jump_where_chunks_are_joined_shows_at_its_border_only():
    jumping = lambda jump: frame_changes(
        np.uint8(panning(18, 1) + np.where(np.arange(18) < 9, 0, jump)[:, None, None, None])
    )
    ratios = [border_ratio(jumping(jump), [8]) for jump in (0, 6, 12, 20, 27)]
    assert ratios == sorted(set(ratios)) and ratios[0] == pytest.approx(1, abs=0.1)
    assert border_ratio(jumping(27), [4]) < 1


def test_chunks_have_their_own_means():
    colours = colour.mean_colours(reddening(np.repeat(panning(1), 12, 0), 66))
    found = over_chunks(colour.colour_distances(colours, colours[0]), [0, 4, 8])
    np.testing.assert_allclose(found, [9, 33, 57], atol=1)
