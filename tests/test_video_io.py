"""Videos come back from files as they were written, even if their writer was killed."""

import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from st2v_jax import video_io
from st2v_jax.errors import InputError, OutputError
from st2v_jax.video_io import VideoReader, VideoWriter, read_metadata, read_video

SETTINGS = {'prompt': 'a "red" ball – über sand', 'seed': 3, 'settings': {'steps': 25, 'eta': 0.0}}


def moving_square(count, size=(32, 48)):
    """[n, h, w, 3] in [-1, 1]: a bright square on dark ground moves to the right by two pixels a frame."""
    frames = np.full((count, *size, 3), -0.6, np.float32)
    for number, frame in enumerate(frames):
        left = 2 * number % (size[1] - 8)
        frame[8:16, left : left + 8] = (0.7, 0.2, -0.3)
    return frames


def test_mp4_keeps_frames_and_settings(tmp_path):
    path = tmp_path / 'video.mp4'
    frames = moving_square(20)
    with VideoWriter(path, 8, (32, 48), SETTINGS) as video:
        video.write(frames[:16])
        video.write(frames[16:])
        assert video.frames == 20
    seen = read_video(path)
    assert seen.shape == frames.shape and seen.dtype == np.uint8
    assert np.abs(seen.astype(int) - video_io.to_uint8(frames)).mean() < 4
    assert read_metadata(path) == SETTINGS


def test_frame_rate_is_stored(tmp_path):
    import av

    for fps in (8, 12.5, 29.97):
        with VideoWriter(tmp_path / 'video.mp4', fps, (16, 16)) as video:
            video.write(np.zeros((10, 16, 16, 3)))
        with av.open(str(tmp_path / 'video.mp4')) as file:
            assert float(file.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-3)


def test_mp4_of_a_killed_writer_plays(tmp_path):
    path = tmp_path / 'killed.mp4'
    program = textwrap.dedent(f"""
        import sys, time
        import numpy as np
        from st2v_jax.video_io import VideoWriter
        video = VideoWriter({str(path)!r}, 8, (32, 32), {{'seed': 5}})
        for chunk in range(2):
            video.write(np.random.default_rng(chunk).uniform(-1, 1, (8, 32, 32, 3)))
        print('two chunks', flush=True)
        time.sleep(60)
    """)
    writer = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    with writer:
        assert writer.stdout.readline() == 'two chunks\n'
        assert len(read_video(path)) == 15, 'it plays while it grows'
        os.kill(writer.pid, signal.SIGKILL)
    assert len(read_video(path)) == 15
    assert read_metadata(path) == {'seed': 5}


def test_an_error_midway_keeps_what_was_written(tmp_path):
    path = tmp_path / 'video.mp4'
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 8, (32, 48)) as video:
        video.write(moving_square(5))
        raise KeyboardInterrupt
    assert len(read_video(path)) == 5


def test_gif_keeps_frames_speed_and_settings(tmp_path):
    path = tmp_path / 'video.gif'
    frames = moving_square(9)
    with VideoWriter(path, 8, (32, 48), SETTINGS) as video:
        video.write(frames)
    seen = read_video(path)
    assert seen.shape == frames.shape
    assert np.abs(seen.astype(int) - video_io.to_uint8(frames)).max() < 8
    assert read_metadata(path) == SETTINGS
    with Image.open(path) as file:
        lengths = []
        for number in range(file.n_frames):
            file.seek(number)
            lengths.append(file.info['duration'])
    assert sum(lengths) == pytest.approx(9 / 8 * 1000, abs=10)


@pytest.mark.parametrize(
    'output, first', [('ball.png', 'ball-0000.png'), ('b-%02d.png', 'b-00.png'), ('new/', 'new/frame-0000.png')]
)
def test_png_frames_are_exact(output, first, tmp_path):
    frames = moving_square(3)
    with VideoWriter(f'{tmp_path}/{output}', 8, (32, 48), SETTINGS) as video:
        video.write(frames)
    assert len(list(tmp_path.rglob('*.png'))) == 3
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / first)), video_io.to_uint8(frames)[0])
    assert read_metadata(tmp_path / first) == SETTINGS


@pytest.mark.parametrize(
    'output, reason',
    [
        ('video.avi', r'ending must be one of \.mp4, \.gif, \.png'),
        ('video', 'ending must be'),
        ('missing/video.mp4', 'No such file or directory'),
        ('file.txt/video.gif', 'Not a directory'),
        ('100%.png', 'numbers its frames as in'),
        ('%d-%d.png', 'numbers its frames as in'),
        ('missing/deep/', 'No such file or directory'),
    ],
)
def test_an_unwritable_output_is_refused_and_nothing_is_made(output, reason, tmp_path):
    (tmp_path / 'file.txt').write_text('mine')
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(OutputError, match=reason):
        video_io.check_output(f'{tmp_path}/{output}')
    assert sorted(tmp_path.rglob('*')) == before


def test_checking_an_output_keeps_what_is_there(tmp_path):
    path = tmp_path / 'video.mp4'
    path.write_text('precious')
    video_io.check_output(path)
    assert path.read_text() == 'precious'
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_frames_are_refused(tmp_path):
    with VideoWriter(tmp_path / 'video.mp4', 8, (32, 48)) as video:
        with pytest.raises(ValueError, match='do not fit a video'):
            video.write(moving_square(2, (16, 16)))
        with pytest.raises(ValueError, match='NaN'):
            video.write(np.full((1, 32, 48, 3), np.nan))
        video.write(moving_square(1))
    with pytest.raises(ValueError, match='even height and width, not 31x48'):
        VideoWriter(tmp_path / 'odd.mp4', 8, (31, 48))
    with pytest.raises(ValueError, match='more than 0 frames per second'):
        VideoWriter(tmp_path / 'still.mp4', 0, (32, 48))
    assert not (tmp_path / 'odd.mp4').exists() and not (tmp_path / 'still.mp4').exists()


def test_a_video_is_read_piece_by_piece(tmp_path):
    with VideoWriter(tmp_path / 'video.mp4', 12.5, (32, 48)) as video:
        video.write(moving_square(20))
    reader = VideoReader(tmp_path / 'video.mp4')
    assert (reader.size, reader.fps) == ((32, 48), 12.5)
    pieces = list(reader)
    assert [len(piece) for piece in pieces] == [8, 8, 4] and pieces[0].dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate(pieces), read_video(tmp_path / 'video.mp4'))


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 9, 2):
        Image.new('RGB', (4, 2), (number, 0, 0)).save(tmp_path / f'frame{number}.png')
    reader = VideoReader(tmp_path)
    assert (reader.size, reader.fps, reader.frames) == ((2, 4), 8, 3)
    assert [frame[0, 0, 0] for piece in reader for frame in piece] == [2, 9, 10]
    Image.new('RGB', (5, 5)).save(tmp_path / 'frame11.png')
    with pytest.raises(InputError, match='frame11.png has another size'):
        list(VideoReader(tmp_path))


def test_a_video_that_a_player_turns_is_turned(tmp_path):
    with VideoWriter(tmp_path / 'lying.mp4', 8, (32, 48)) as video:
        video.write(moving_square(3))
    lying = bytearray((tmp_path / 'lying.mp4').read_bytes())
    matrix = lying.find(b'tkhd') + 44  # of the track, as an upright phone writes it: a quarter turn clockwise
    lying[matrix : matrix + 36] = np.array([0, 2**16, 0, -(2**16), 0, 0, 0, 0, 2**30], '>i4').tobytes()
    (tmp_path / 'upright.mp4').write_bytes(lying)
    upright = read_video(tmp_path / 'upright.mp4')
    np.testing.assert_array_equal(upright, np.rot90(read_video(tmp_path / 'lying.mp4'), -1, (1, 2)))


def test_wide_pixels_become_square(tmp_path):
    import av

    with av.open(str(tmp_path / 'wide.mp4'), 'w') as file:
        stream = file.add_stream('libx264', rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 48, 'yuv420p'
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in video_io.to_uint8(moving_square(3)):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        file.mux(stream.encode())
    assert read_video(tmp_path / 'wide.mp4').shape == (3, 32, 64, 3)
