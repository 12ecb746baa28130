"""Frames are read at their times: constant rates frame for frame, variable ones resampled, durations kept."""

import numpy as np
import pytest
from PIL import Image
from video_io.films import encode, numbered, numbers

from st2v_jax.video_io import VideoReader, VideoWriter, timed_frames

CODECS = {'mp4': 'libx264', 'mov': 'libx264', 'mkv': 'libx264', 'webm': 'libvpx-vp9', 'avi': 'mpeg4', 'ts': 'libx264'}
VARIABLE = np.cumsum([0, *([40] * 10), 500, *([20] * 10), 300, 300, *([33] * 6)])  # milliseconds


def read(path, **options):
    """(reader, numbers of its frames)."""
    reader = VideoReader(path, **options)
    return reader, numbers(np.concatenate(list(reader)))


@pytest.mark.parametrize('ending', CODECS)
@pytest.mark.parametrize('fps', [25, 29.97, 12.5])
def test_a_constant_rate_comes_frame_for_frame(ending, fps, tmp_path):
    times = [round(1000 * number / fps) for number in range(30)]
    path = encode(tmp_path / f'film.{ending}', numbered(30), CODECS[ending], times, fps=round(fps))
    reader, found = read(path)
    assert (len(found), reader.frames, reader.notes) == (30, 30, [])
    assert reader.fps == pytest.approx(fps, rel=0.01)  # times in whole milliseconds
    np.testing.assert_allclose(found, np.arange(30), atol=1)


@pytest.mark.parametrize('ending', CODECS)
def test_a_variable_rate_becomes_the_mean_one_and_the_duration_stays(ending, tmp_path):
    path = encode(tmp_path / f'film.{ending}', numbered(len(VARIABLE)), CODECS[ending], VARIABLE)
    reader, found = read(path)
    assert abs(len(found) - len(VARIABLE)) <= 1 and len(found) == reader.frames
    assert len(found) / reader.fps == pytest.approx(VARIABLE[-1] / 1000, abs=1 / reader.fps)
    wanted = [np.abs(VARIABLE / 1000 - number / reader.fps).argmin() for number in range(len(found))]
    np.testing.assert_allclose(found, wanted, atol=1)
    (note,) = reader.notes
    assert note.startswith('variable frame rate: resampled to its mean, 1')


@pytest.mark.parametrize('fps', [3, 8, 24, 50, 60.5])
def test_a_rate_that_is_asked_for_keeps_the_duration(fps, tmp_path):
    for times in (np.arange(50) * 40, VARIABLE):
        path = encode(tmp_path / 'film.mkv', numbered(len(times)), times=times)
        reader, found = read(path, fps=fps)
        assert reader.fps == fps and len(reader.notes) == 1
        assert len(found) / fps == pytest.approx(times[-1] / 1000 + 0.04, abs=1 / fps + 0.04)
        wanted = [np.abs(times / 1000 - number / fps).argmin() for number in range(len(found))]
        np.testing.assert_allclose(found, wanted, atol=1)


def test_a_header_that_lies_about_the_rate_is_not_believed(tmp_path):
    path = encode(tmp_path / 'film.mkv', numbered(50), times=np.arange(50) * 40, fps=8)
    reader, found = read(path)
    assert (reader.fps, len(found)) == (25, 50)


@pytest.mark.parametrize(
    'delays, fps, wanted',
    [
        ([80] * 5, 12.5, [0, 1, 2, 3, 4]),
        ([0] * 5, 10, [0, 1, 2, 3, 4]),
        ([10] * 5, 10, [0, 1, 2, 3, 4]),  # browsers show what is below two hundredths of a second for ten
        ([20] * 5, 50, [0, 1, 2, 3, 4]),
        ([100, 100, 100, 100, 600], 10, [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]),
        ([300, 100, 100, 300, 400], 25 / 6, [0, 1, 3, 4, 4]),
        ([40, 40, 50] * 3, 23, list(range(9))),
        ([700], 1 / 0.7, [0]),
    ],
)
def test_the_delays_of_a_gif_are_its_times(delays, fps, wanted, tmp_path):
    pictures = [Image.fromarray(frame) for frame in numbered(len(delays))]
    pictures[0].save(tmp_path / 'film.gif', save_all=True, append_images=pictures[1:], duration=delays)
    reader, found = read(tmp_path / 'film.gif')
    assert reader.fps == pytest.approx(fps, rel=0.02)
    np.testing.assert_array_equal(found, wanted)


def test_what_has_no_times_says_so_and_takes_any_rate(tmp_path):
    path = encode(tmp_path / 'film.h264', numbered(20), format='h264')
    for options, fps, notes in (({}, 25, 1), ({'fps': 8}, 8, 0)):
        reader, found = read(path, **options)
        assert (reader.fps, len(found), len(reader.notes)) == (fps, 20, notes)
    with VideoWriter(f'{tmp_path}/frames/', 24, (32, 32)) as video:
        video.write(numbered(3))
    reader = VideoReader(tmp_path / 'frames')
    assert (reader.fps, reader.notes) == (8, ['no times: 8 frames per second assumed; --fps sets another'])
    reader = VideoReader(tmp_path / 'frames', fps=24)
    assert (reader.fps, reader.frames, reader.notes) == (24, 3, [])


def test_times_come_with_the_frames(tmp_path):
    path = encode(tmp_path / 'film.mkv', numbered(len(VARIABLE)), times=VARIABLE)
    shots = list(timed_frames(path))
    np.testing.assert_allclose([shot.time for shot in shots], VARIABLE / 1000, atol=0.001)
    np.testing.assert_allclose(numbers(np.stack([shot.frame for shot in shots])), np.arange(len(VARIABLE)), atol=1)
