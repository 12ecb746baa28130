"""Colours, transparency and direction of videos are those that a player shows."""

import av
import numpy as np
import pytest
from PIL import Image
from video_io.films import bars, bars_off, encode

from st2v_jax.video_io import VideoWriter, read_video

# matrices by ffmpeg's number: the weights of red and blue in luma
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def in_yuv(rgb, matrix, full=False, bits=8):
    """A frame in yuv444p, converted by the formula of the standard."""
    red, green, blue = np.moveaxis(rgb / 255, -1, 0)
    of_red, of_blue = WEIGHTS[matrix]
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    u, v = (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)
    scale = 2 ** (bits - 8)
    if full:
        planes = [luma * (256 * scale - 1), u * (256 * scale - 1) + 128 * scale, v * (256 * scale - 1) + 128 * scale]
    else:
        planes = [(16 + 219 * luma) * scale, (128 + 224 * u) * scale, (128 + 224 * v) * scale]
    kind = np.uint8 if bits == 8 else np.dtype('<u2')
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], 'yuv444p' if bits == 8 else f'yuv444p{bits}le')
    for plane, values in zip(frame.planes, planes):
        rows = np.zeros((rgb.shape[0], plane.line_size // kind().itemsize if bits == 8 else plane.line_size // 2), kind)
        rows[:, : rgb.shape[1]] = np.clip(np.round(values), 0, 256 * scale - 1)
        plane.update(rows.tobytes())
    return frame


@pytest.mark.parametrize('size, matrix', [((720, 1280), 1), ((1080, 96), 1), ((360, 640), 6), ((718, 96), 6)])
def test_written_colours_come_back_and_are_named(size, matrix, tmp_path):
    with VideoWriter(tmp_path / 'film.mp4', 8, size) as video:
        video.write(np.stack([bars(size)] * 2))
    assert bars_off(read_video(tmp_path / 'film.mp4')[0]) <= 2
    with av.open(str(tmp_path / 'film.mp4')) as file:
        about = file.streams.video[0].codec_context
        assert (about.colorspace, about.color_range, about.color_primaries, about.color_trc) == (matrix, 1, 1, 1)
        frame = next(file.decode(video=0))
    # the numbers in the file are those of the matrix that it names
    luma = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)[4, 4]
    of_red, of_blue = WEIGHTS[matrix]
    assert luma == pytest.approx(16 + 219 / 255 * (of_red * 200 + (1 - of_red - of_blue) * 30 + of_blue * 40), abs=1.5)


@pytest.mark.parametrize('ending, codec', [('mkv', 'ffv1'), ('mp4', 'libx264'), ('webm', 'libvpx-vp9')])
@pytest.mark.parametrize('lines', [96, 720])
@pytest.mark.parametrize('full', [False, True])
def test_foreign_colours_are_those_of_their_tag_or_of_their_size(ending, codec, lines, full, tmp_path):
    for tag in (None, *WEIGHTS):
        frame = in_yuv(bars((lines, 96)), tag or (1 if lines == 720 else 6), full)
        tags = {'colorspace': tag or 2, 'color_range': 2 if full else 1}
        for name, value in tags.items():
            setattr(frame, name, value)
        path = encode(tmp_path / f'film.{ending}', [frame], codec, pix_fmt='yuv444p', **tags)
        assert bars_off(read_video(path)[0]) <= 3, (tag, full)


@pytest.mark.parametrize(
    'bits, matrix, transfer', [(10, 1, 1), (10, 9, 16), (10, 9, 18), (10, 10, 14), (8, 14, 16), (8, 3, 2)]
)
def test_many_bits_and_tags_of_hdr_are_read(bits, matrix, transfer, tmp_path):
    frame = in_yuv(bars((720, 96)), matrix if matrix in WEIGHTS else 1, bits=bits)
    tags = {'colorspace': matrix, 'color_primaries': 9, 'color_trc': transfer}
    path = encode(tmp_path / 'film.mkv', [frame], 'libx264', pix_fmt=frame.format.name, **tags)
    assert bars_off(read_video(path)[0]) <= 3


def test_full_range_of_old_names_is_full_range(tmp_path):
    frame = in_yuv(bars((96, 96)), 6, full=True).reformat(format='yuvj420p', src_color_range=2, dst_color_range=2)
    for ending, codec in (('mkv', 'mjpeg'), ('mp4', 'libx264')):
        path = encode(tmp_path / f'film.{ending}', [frame], codec, pix_fmt='yuvj420p')
        assert bars_off(read_video(path)[0]) <= 5


@pytest.mark.parametrize(
    'ending, codec, pix_fmt',
    [('mov', 'prores_ks', 'yuva444p10le'), ('webm', 'libvpx-vp9', 'yuva420p'), ('mov', 'qtrle', 'argb')],
)
def test_transparent_pixels_show_black_and_no_hidden_colour(ending, codec, pix_fmt, tmp_path):
    frame = np.full((64, 64, 4), (200, 30, 40, 255), np.uint8)
    frame[32:48, :, 3], frame[48:, :, 3] = 128, 0
    frames = [av.VideoFrame.from_ndarray(frame, format='rgba').reformat(format=pix_fmt)]
    options = {'profile': '4444'} if codec == 'prores_ks' else {}
    path = encode(
        tmp_path / f'film.{ending}', frames, codec, pix_fmt=pix_fmt, options=options, tags={'alpha_mode': '1'}
    )
    seen = read_video(path)[0, [8, 40, 60], 8].astype(int)
    np.testing.assert_allclose(seen, [(200, 30, 40), (100, 15, 20), (0, 0, 0)], atol=4)


def test_transparent_pixels_of_a_gif_show_black(tmp_path):
    picture = np.full((16, 16, 4), (200, 30, 40, 255), np.uint8)
    picture[8:, :, 3] = 0
    pictures = [Image.fromarray(picture)] * 2
    pictures[0].save(tmp_path / 'film.gif', save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    np.testing.assert_array_equal(read_video(tmp_path / 'film.gif')[0, [4, 12], 4], [(200, 30, 40), (0, 0, 0)])


@pytest.mark.parametrize('size', [(1, 1), (17, 35), (16, 4096), (4096, 16), (3, 2)])
def test_frames_of_any_size_are_read(size, tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    path = encode(tmp_path / 'film.mkv', [frame] * 2, 'ffv1', pix_fmt='bgr0')
    np.testing.assert_array_equal(read_video(path), [frame] * 2)


TURNS = {  # where the axes x and y of the stored frame point to, as (a, b, c, d) of the display matrix
    (1, 0, 0, 1): lambda frames: frames,
    (-1, 0, 0, 1): lambda frames: frames[:, :, ::-1],
    (1, 0, 0, -1): lambda frames: frames[:, ::-1],
    (-1, 0, 0, -1): lambda frames: frames[:, ::-1, ::-1],
    (0, 1, -1, 0): lambda frames: np.rot90(frames, -1, (1, 2)),
    (0, -1, 1, 0): lambda frames: np.rot90(frames, 1, (1, 2)),
    (0, 1, 1, 0): lambda frames: frames.swapaxes(1, 2),
    (0, -1, -1, 0): lambda frames: frames[:, ::-1, ::-1].swapaxes(1, 2),
}


@pytest.mark.parametrize('turn', TURNS)
@pytest.mark.parametrize('ending', ['mp4', 'mov', 'mkv'])
def test_turned_and_mirrored_videos_are_the_right_way_up(turn, ending, tmp_path):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:8, :8], picture[-8:, :16] = (255, 0, 0), (0, 255, 0)
    upright = read_video(encode(tmp_path / f'film.{ending}', [picture] * 2))
    a, b, c, d = (65536 * value for value in turn)
    matrix = [a, b, 0, c, d, 0, 0, 0, 2**30]
    path = tmp_path / f'turned.{ending}'
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('libx264', rate=25, options={'crf': '1'})
        stream.height, stream.width, stream.pix_fmt = 32, 48, 'yuv420p'
        stream.set_display_matrix(matrix)
        for _ in range(2):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        file.mux(stream.encode())
    np.testing.assert_array_equal(read_video(path), TURNS[turn](upright))
