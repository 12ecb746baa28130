"""What a video starts from: clips at the model's size and rate, pictures, and what is neither."""

import numpy as np
import pytest
from PIL import Image
from video_io.films import encode, numbered, numbers

from st2v_jax.errors import InputError
from st2v_jax.video_io.start import MAX_BYTES, fitted, read_start

SIZE = (32, 32)


def read(path, size=SIZE, **options):
    return read_start(path, size, **{'fps': 8, 'memory': 8} | options)


def picture(path, size, value=255):
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


@pytest.mark.parametrize('fps', [3, 8, 30])
def test_a_clip_comes_at_the_rate_of_the_model_by_its_times(fps, tmp_path):
    variable = np.cumsum([0, *([40] * 30), 900, *([20] * 30)])
    for times in (np.arange(60) * 40, variable):
        path = encode(tmp_path / 'film.mkv', numbered(len(times)), times=times)
        start = read(path, fps=fps, memory=2)
        wanted = [np.abs(times / 1000 - number / fps).argmin() for number in range(len(start.frames))]
        np.testing.assert_allclose(numbers(start.frames), wanted, atol=1)
        assert len(start.frames) / fps == pytest.approx(times[-1] / 1000 + 0.04, abs=1 / fps + 0.04)
        (note,) = start.notes
        assert note.startswith(f'{path}: ') and f' {fps} ' in note


@pytest.mark.parametrize(
    'own, size', [((40, 80), (32, 32)), ((80, 20), (32, 32)), ((32, 32), (48, 32)), ((9, 7), (16, 48))]
)
def test_the_aspect_is_kept_in_black_borders_and_with_crop_the_frame_is_full(own, size):
    white = np.full((*own, 3), 255, np.uint8)
    lit = fitted(white, size).max(-1) > 0
    rows, columns = lit.any(1).sum(), lit.any(0).sum()
    assert rows == size[0] or columns == size[1], 'as large as fits'
    scale = min(size[0] / own[0], size[1] / own[1])
    assert (rows, columns) == pytest.approx((own[0] * scale, own[1] * scale), abs=1)
    assert lit.sum() == rows * columns and abs(lit[: size[0] // 2].sum() - lit[size[0] // 2 :].sum()) <= lit.shape[1]
    assert fitted(white, size, crop=True).min() == 255


def test_a_crop_shows_the_middle():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (200, 100, 50)
    assert (fitted(wide, (20, 20), crop=True) == (200, 100, 50)).all()


def test_a_frame_of_the_right_size_stays_as_it_is(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(frame).save(tmp_path / 'one.png')
    np.testing.assert_array_equal(read(tmp_path / 'one.png').frames, frame[None])


def test_an_anchor_is_a_picture_of_its_own(tmp_path):
    clip = encode(tmp_path / 'film.mkv', numbered(9), fps=8)
    assert read(clip).anchor is None
    start = read(clip, anchor=picture(tmp_path / 'anchor.png', (64, 64)))
    assert start.anchor.shape == (*SIZE, 3) and (start.anchor == 255).all() and len(start.frames) == 9


@pytest.mark.parametrize(
    'make, told',
    [
        (lambda path: path / 'nothing.mp4', r'nothing.mp4: there is no such file or folder'),
        (lambda path: (path / 'text.mp4').write_text('no video') and path / 'text.mp4', 'cannot read .*text.mp4'),
        (lambda path: (path / 'text.png').write_text('no picture') and path / 'text.png', 'cannot read .*text.png'),
        (lambda path: (path / 'empty').mkdir() or path / 'empty', 'there are no frames in it'),
        (lambda path: encode(path / 'film.mkv', numbered(7), fps=8), 'has 7 frames at 8 per second.* at least 8'),
        (lambda path: encode(path / 'film.mkv', numbered(20), fps=25), 'has 6 frames at 8 per second.* at least 8'),
        (lambda path: picture(path / 'dot.png', (1, 1)), r'dot.png has 1x1 pixels; a start has at least 16'),
        (lambda path: picture(path / 'line.png', (200, 3)), 'line.png has 200x3 pixels'),
    ],
    ids=['missing', 'text', 'text as picture', 'empty folder', 'short', 'short at the rate', 'one pixel', 'a line'],
)
def test_what_no_video_starts_from_is_one_line(make, told, tmp_path):
    with pytest.raises(InputError, match=told) as raised:
        read(make(tmp_path))
    assert len(str(raised.value).splitlines()) == 1


def test_a_clip_that_is_too_long_is_refused_before_its_frames_are_read(tmp_path):
    clip = encode(tmp_path / 'film.mkv', numbered(9), fps=8)
    size = 2 * [round((MAX_BYTES / 3 / 8.5) ** 0.5)]
    with pytest.raises(InputError, match='has 9 frames at 8 per second; at .* at most 8 are kept'):
        read(clip, size=tuple(size))


def test_a_video_is_no_anchor(tmp_path):
    clip = encode(tmp_path / 'film.mkv', numbered(9), fps=8)
    with pytest.raises(InputError, match='film.mkv is not a picture: these end with .png'):
        read(clip, anchor=clip)
