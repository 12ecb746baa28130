"""Instruments see a video piece by piece and give what the metrics give for the whole."""

import numpy as np
import pytest

pytest.importorskip('cv2')
pytest.importorskip('scenedetect')

from known_videos import panning  # noqa: E402

from st2v_jax.errors import InputError  # noqa: E402
from st2v_jax.evaluation import instruments, measuring  # noqa: E402
from st2v_jax.evaluation.instruments import WEIGHT_FREE, Flow, View, motion, warp_error  # noqa: E402
from st2v_jax.metrics import colour, mawe, steadiness  # noqa: E402
from st2v_jax.metrics.flow import flows  # noqa: E402
from st2v_jax.metrics.ssim import ssim  # noqa: E402

VIDEO = panning(frames=19, size=32)  # three pieces of a reader


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The video as frames without loss."""
    from st2v_jax.video_io import VideoWriter

    path = tmp_path_factory.mktemp('frames')
    with VideoWriter(f'{path}/', 8, (32, 32)) as video:
        video.write(VIDEO)
    return path


@pytest.fixture(scope='module')
def measured(folder):
    small = [each if each.name != 'mawe' else _at(each, (48, 48)) for each in WEIGHT_FREE]
    return measuring.measure(folder, small, None)


def _at(instrument, size):
    import dataclasses

    return dataclasses.replace(instrument, size=size)


def test_pieces_give_what_the_whole_gives(measured):
    numbers = {name: found['numbers'] for name, found in measured['measured'].items()}
    large = instruments.resized(VIDEO, (48, 48))
    assert numbers['mawe']['mawe'] == pytest.approx(mawe.mawe(large, flows(large)))
    assert numbers['mawe']['mawe_paper'] == pytest.approx(mawe.mawe(large, flows(large), profile='paper'))
    assert numbers['motion']['flow'] == pytest.approx(steadiness.flow_lengths(VIDEO).mean())
    assert numbers['motion']['flow_deviation'] == pytest.approx(steadiness.flow_lengths(VIDEO).std())
    assert numbers['steadiness']['change'] == pytest.approx(steadiness.frame_changes(VIDEO).mean())
    assert numbers['ssim']['ssim_first'] == pytest.approx(np.mean([ssim(VIDEO[0], frame) for frame in VIDEO]))
    means = colour.mean_colours(VIDEO)
    assert numbers['colour']['colour_distance'] == pytest.approx(colour.colour_distances(means, means[0]).mean())
    assert numbers['scuts'] == {'scuts': 0}


def test_curves_have_a_value_for_each_frame_or_pair(measured):
    assert (measured['frames'], measured['size']) == (19, [32, 32])
    for name, found in measured['measured'].items():
        for curve, values in found['curves'].items():
            assert len(values) in ((18, 19) if name != 'scuts' else (0,)), curve


def test_a_cut_is_counted_where_it_is(tmp_path):
    from st2v_jax.video_io import VideoWriter

    scenes = np.concatenate([panning(20, size=32, seed=1, speed=0), 255 - panning(20, size=32, seed=5, speed=0)])
    with VideoWriter(f'{tmp_path}/', 8, (32, 32)) as video:
        video.write(scenes)
    (scuts,) = [each for each in WEIGHT_FREE if each.name == 'scuts']
    found = measuring.measure(tmp_path, [scuts], None)['measured']['scuts']
    assert found['numbers'] == {'scuts': 1} and found['curves'] == {'cuts': [20]}


def test_a_still_video_has_no_mawe_and_its_json_has_no_infinity(tmp_path):
    from st2v_jax.video_io import VideoWriter

    with VideoWriter(f'{tmp_path}/', 8, (32, 32)) as video:
        video.write(np.zeros((3, 32, 32, 3), np.uint8))
    found = measuring.measure(tmp_path, [_at(WEIGHT_FREE[0], (32, 32))], None)['measured']['mawe']
    assert found['numbers'] == {'mawe': None, 'mawe_paper': None}


def test_each_flow_of_a_view_is_computed_once():
    calls = []
    counted = Flow(lambda frames: calls.append(len(frames)) or flows(frames), {'flow': 'counted'})
    view = View(VIDEO[1:4], VIDEO[0])
    assert view.flows(counted) is view.flows(counted) and view.flows(counted).shape == (3, 32, 32, 2) and calls == [4]
    double = Flow(lambda frames: 2 * flows(frames), {'flow': 'double'})
    np.testing.assert_array_equal(view.flows(double), 2 * view.flows(counted))


@pytest.mark.parametrize('instrument', [warp_error, motion])
def test_a_flow_decides_numbers_settings_and_the_smallest_size(instrument):
    double = Flow(lambda frames: 2 * flows(frames), {'flow': 'double'}, smallest=40)
    plain, other = instrument(), instrument(double)
    assert other.settings(None)['flow'] == 'double' and plain.settings(None)['flow'].startswith('DIS')
    assert (plain.smallest, other.smallest) == (1, 40)
    view = View(VIDEO[:4], None)
    curves = [each.begin(None)(view)['flow'] for each in (plain, other)]
    np.testing.assert_allclose(curves[1], 2 * curves[0])


def test_numbers_of_all_instruments_have_different_names(measured):
    names = [name for found in measured['measured'].values() for name in found['numbers']]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(('frames', 'size', 'words'), [(1, 32, 'one frame'), (3, 8, 'ssim needs 11 pixels')])
def test_what_is_too_short_or_too_small_is_told(frames, size, words, tmp_path):
    from st2v_jax.video_io import VideoWriter

    with VideoWriter(f'{tmp_path}/', 8, (size, size)) as video:
        video.write(np.zeros((frames, size, size, 3), np.uint8))
    with pytest.raises(InputError, match=words):
        measuring.measure(tmp_path, WEIGHT_FREE, None)
