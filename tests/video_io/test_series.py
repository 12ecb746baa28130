"""What a writer replaces, what it refuses, which names and rates it takes, and what a full disk leaves."""

import contextlib
import errno
import json
import resource

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from video_io.films import encode, numbered, numbers

from st2v_jax import video_io
from st2v_jax.errors import OutputError
from st2v_jax.video_io import VideoReader, VideoWriter, read_metadata, read_video

SERIES = {
    'st/': 'st/frame-{:04d}.png',
    'ball.png': 'ball-{:04d}.png',
    'b%03d-x.png': 'b{:03d}-x.png',
    'n%d.png': 'n{}.png',
}


def write(path, count, fps=8, metadata=None):
    with VideoWriter(path, fps, (32, 32), metadata) as video:
        video.write(numbered(count))


@pytest.mark.parametrize('output', SERIES)
def test_a_new_series_replaces_the_old_one_whole(output, tmp_path):
    name = SERIES[output]
    write(f'{tmp_path}/{output}', 12)
    mine = [tmp_path / name.format(5).replace('.png', end) for end in ('.txt', '.png.bak', '-draft.png')]
    mine.append(tmp_path / f'other-{0:04d}.png')
    for file in mine:
        file.write_bytes(b'mine')
    write(f'{tmp_path}/{output}', 5)
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob('*') if file.is_file()}
    assert files == {name.format(number) for number in range(5)} | {str(file.relative_to(tmp_path)) for file in mine}
    assert all(file.read_bytes() == b'mine' for file in mine)


@pytest.mark.parametrize('output', SERIES)
@pytest.mark.parametrize('comment', [None, 'a sunny day', '[1]', b'\xe9'])
def test_frames_of_somebody_else_are_refused_and_stay(output, comment, tmp_path):
    file = tmp_path / SERIES[output].format(7)
    file.parent.mkdir(exist_ok=True)
    notes = PngImagePlugin.PngInfo()
    if comment:
        notes.add_text('comment', comment)
    Image.new('RGB', (4, 4)).save(file, pnginfo=notes)
    before = file.read_bytes()
    for check in (video_io.check_output, lambda path: VideoWriter(path, 8, (32, 32))):
        with pytest.raises(OutputError, match='there are frames that this program did not write'):
            check(f'{tmp_path}/{output}')
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == [file] and file.read_bytes() == before


@pytest.mark.parametrize(
    'name', ['scene1:take2', 'concat:a', 'pipe:1', '-x', 'http:', 'file:a', 'a,b=c|d', 'x-%03d', 'é 球']
)
@pytest.mark.parametrize('ending', ['.mp4', '.gif', '/'])
def test_a_name_is_a_name_and_no_protocol(name, ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video_io.check_output(name + ending)
    write(name + ending, 3, metadata={'seed': 1})
    assert len(read_video(name + ending)) == 3
    assert read_metadata(f'{name}/frame-0000.png' if ending == '/' else name + ending) == {'seed': 1}
    assert [file.name for file in tmp_path.iterdir()] == [name + ending.strip('/')]


@pytest.mark.parametrize('fps', [0.001, 0.0017, 0.4, 1.0004, 23.976, 24000 / 1001, 59.94, np.pi, 1000])
def test_an_mp4_has_the_rate_that_was_asked_for(fps, tmp_path):
    write(tmp_path / 'film.mp4', 3, fps)
    assert VideoReader(tmp_path / 'film.mp4').fps == pytest.approx(fps, rel=1e-5)


@pytest.mark.parametrize(
    'output, fps, reason',
    [
        ('film.gif', 60, 'gif holds 0.002 to 50 frames per second, an mp4 up to 1000; not 60'),
        ('film.gif', 50.01, 'not 50.01'),
        ('film.gif', 0.001, 'gif holds 0.002 to 50'),
        ('film.mp4', 0.0001, 'mp4 holds 0.001 to 1000 frames per second; not 0.0001'),
        ('film.mp4', 1e6, 'not 1e.06'),
    ],
)
def test_a_rate_that_the_file_cannot_hold_is_refused(output, fps, reason, tmp_path):
    for check in (video_io.check_rate, lambda path, fps: VideoWriter(path, fps, (32, 32))):
        with pytest.raises(OutputError, match=reason):
            check(tmp_path / output, fps)
    assert not list(tmp_path.iterdir())


def test_rates_that_a_file_can_hold_are_not_refused():
    for output, rates in {'a.gif': (0.002, 8, 50), 'a.mp4': (0.001, 8, 1000), 'a.png': (1e-9, 8, 1e9)}.items():
        for fps in rates:
            video_io.check_rate(output, fps)


@contextlib.contextmanager
def full_disk(size):
    """No file can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('output', ['film.mp4', 'film.gif', 'film.png'])
@pytest.mark.parametrize('size', [300, 3000, 5000])
def test_a_full_disk_leaves_what_was_complete_and_its_count(output, size, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    small = 1000 if output == 'film.png' else size
    with full_disk(small), pytest.raises(OSError) as failed, VideoWriter(tmp_path / output, 8, (32, 32)) as video:
        video.write(noise)
    assert failed.value.errno == errno.EFBIG and failed.value.filename == str(tmp_path / output)
    assert not list(tmp_path.glob('.*')) and video.kept < 9
    kept = 0
    with contextlib.suppress(OSError):
        kept = len(read_video(tmp_path / output if output == 'film.mp4' else tmp_path))
    assert kept == video.kept and (kept > 0) == (output == 'film.mp4' and size > 300)


def test_the_count_of_what_is_kept_is_right_as_it_grows(tmp_path):
    for output, counts in {'film.mp4': (2, 4), 'film.gif': (0, 4), 'film.png': (3, 4)}.items():
        with VideoWriter(tmp_path / output, 8, (32, 32)) as video:
            video.write(numbered(3))
            assert (video.frames, video.kept) == (3, counts[0])
            video.write(numbered(4)[3:])
        assert (video.frames, video.kept) == (4, counts[1])


@pytest.mark.parametrize('comment', [None, 'a sunny day', '[1, 2]', '7', 'null', '{"a": ', '[' * 100_000, 'caf\xe9'])
def test_files_of_others_have_no_metadata_of_ours(comment, tmp_path):
    picture = Image.new('RGB', (8, 8))
    notes = PngImagePlugin.PngInfo()
    if comment:
        notes.add_text('comment', comment)
    picture.save(tmp_path / 'a.png', pnginfo=notes)
    picture.save(tmp_path / 'a.gif', comment=(comment or '').encode('latin-1'))
    for ending in ('mp4', 'mkv', 'mov'):
        encode(tmp_path / f'a.{ending}', numbered(1))
    data = (tmp_path / 'a.mp4').read_bytes()
    write(tmp_path / 'b.mp4', 1, metadata={'x': 'eeee'})
    (tmp_path / 'b.mp4').write_bytes((tmp_path / 'b.mp4').read_bytes().replace(b'eeee', b'\xe9\xe9\xe9"'))
    for file in sorted(tmp_path.iterdir()):
        assert read_metadata(file) == {}, file
    assert data


def test_metadata_of_any_kind_come_back(tmp_path):
    about = json.loads(json.dumps({'prompt': 'a "red" ball – 球 🎈\0\n;=#\\', 'long': 'x' * 300_000}))
    for ending in ('mp4', 'gif', 'png'):
        write(tmp_path / f'a.{ending}', 2, metadata=about)
    for name in ('a.mp4', 'a.gif', 'a-0000.png'):
        assert read_metadata(tmp_path / name) == about
    np.testing.assert_array_equal(numbers(read_video(tmp_path / 'a.mp4')), [0, 1])
