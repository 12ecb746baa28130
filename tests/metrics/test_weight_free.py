"""Each defect moves the metric that should see it, more with each strength; pieces of a video add up to the whole."""

import numpy as np
import pytest
from known_videos import bleaching, blurring, flickering, freezing, noisy, panning, reddening

from st2v_jax.metrics import mawe, weight_free
from st2v_jax.metrics.cuts import cuts
from st2v_jax.metrics.flow import flow, flows

pytest.importorskip('cv2')
pytest.importorskip('scenedetect')


def measured(video, piece=100, **options):
    measure = weight_free.WeightFree(**options)
    for i in range(0, len(video), piece):
        measure.add(video[i : i + piece])
    return measure.result()


@pytest.mark.parametrize('piece', [1, 5, 12])
def test_pieces_of_any_size_add_up_to_the_whole(piece):
    video = noisy(panning(12), 4)
    whole, pieces = measured(video, starts=[5, 9]), measured(video, piece, starts=[5, 9])
    for name, curve in whole['curves'].items():
        np.testing.assert_array_equal(pieces['curves'][name], curve, err_msg=name)
    for name in ('mawe', 'cuts', 'flow_deviation', 'border_ratio', 'stagnation', 'drift'):
        assert pieces[name] == whole[name]


def test_numbers_are_those_of_the_functions():
    video = noisy(panning(8), 4)
    found, vectors = measured(video), flows(video)
    for profile, value in found['mawe'].items():
        assert value == pytest.approx(mawe.mawe(video, vectors, profile=profile))
    assert found['cuts'] == cuts(video) and found['frames'] == 8 and np.isnan(found['border_ratio'])


def test_each_flow_is_computed_once():
    asked = []

    def counting(first, second):
        asked.append(1)
        return flow(first, second)

    measured(panning(9), piece=4, estimate=counting)
    assert len(asked) == 8


def test_a_picture_that_moves_by_whole_pixels_has_no_fault():
    found = measured(panning(20, 2))
    assert found['mawe']['release'] < 1 and found['flow_deviation'] < 0.05 and found['cuts'] == []
    assert found['curves']['flow'].mean() == pytest.approx(2, rel=0.1)
    assert found['stagnation']['share'] == 0


DEFECTS = {
    'flicker in MAWE': (flickering, (0, 4, 8, 16, 32), lambda found: found['mawe']['release']),
    'flicker in the other MAWE': (flickering, (0, 4, 8, 16, 32), lambda found: found['mawe']['paper']),
    'noise in MAWE': (noisy, (0, 3, 6, 12, 24), lambda found: found['mawe']['release']),
    'noise in the fine detail': (
        noisy,
        (0, 3, 6, 12, 24),
        lambda found: found['curves']['high_frequency_change'].mean(),
    ),
    'freezing in stagnation': (freezing, (0, 2, 4, 7, 10), lambda found: found['stagnation']['share']),
    'freezing in the deviation of flow': (freezing, (0, 1, 2, 3, 5), lambda found: found['flow_deviation']),
    'blur in sharpness': (blurring, (0, 1, 2, 3, 5), lambda found: -found['drift']['sharpness']['drift']),
    'blur without a reference': (blurring, (0, 1, 2, 3, 5), lambda found: found['drift']['blur']['drift']),
    'red in the distance of colour': (
        reddening,
        (0, 5, 15, 30, 60),
        lambda found: found['drift']['colour_distance']['drift'],
    ),
    'red in the histogram': (
        reddening,
        (0, 5, 15, 30, 60),
        lambda found: found['drift']['histogram_distance']['drift'],
    ),
    'bleaching in colourfulness': (
        bleaching,
        (0, 0.2, 0.4, 0.7, 1),
        lambda found: -found['drift']['colourfulness']['drift'],
    ),
}


@pytest.mark.parametrize('defect', DEFECTS)
def test_a_stronger_defect_is_measured_as_more(defect):
    damage, strengths, number = DEFECTS[defect]
    found = [number(measured(damage(panning(14, 2, 48), strength))) for strength in strengths]
    assert found == sorted(found) and found[0] < found[1] and found[-2] < found[-1], found


def test_a_video_that_slows_down_more_loses_more_of_its_motion():
    wide = panning(60, 1, 48)
    places = lambda slower: np.cumsum([0, *[4] * 7, *[4 - slower] * 6])
    drifts = [measured(wide[places(slower)])['drift']['motion']['drift'] for slower in range(5)]
    assert drifts == sorted(drifts, reverse=True) and abs(drifts[0]) < 0.1
    assert drifts[2] == pytest.approx(-2, abs=0.4)


def test_a_jump_where_chunks_are_joined_shows_at_its_border_only():
    ratios = []
    for jump in (0, 6, 12, 20, 40):
        video = panning(18, 1).astype(int)
        video[9:] += jump
        ratios.append(measured(np.uint8(np.clip(video, 0, 255)), starts=[9])['border_ratio'])
    assert ratios == sorted(set(ratios)) and ratios[0] == pytest.approx(1, abs=0.1)
    assert measured(np.uint8(np.clip(video, 0, 255)), starts=[5])['border_ratio'] < 1


def test_chunks_have_their_own_means():
    found = measured(reddening(np.repeat(panning(1), 12, 0), 66), starts=[4, 8])
    np.testing.assert_allclose(found['chunks']['colour_distance'], [9, 33, 57], atol=1)


def test_one_frame_is_no_video():
    with pytest.raises(ValueError, match='at least two frames, got 1'):
        measured(panning(1))
    with pytest.raises(ValueError, match='at least two frames, got 0'):
        weight_free.WeightFree().result()
