"""Damaged files are input errors, with numbers where there are some; whole files never are."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from data.videos import shipped
from PIL import Image
from video_io.films import encode, numbered

from st2v_jax.data import prepare
from st2v_jax.errors import InputError
from st2v_jax.video_io import VideoReader, VideoWriter, read_metadata, read_video, timed_frames

NOISE = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
MADE = {  # ending: codec, pixels
    'mkv': ('libx264', 'yuv420p'),
    'webm': ('libvpx-vp9', 'yuv420p'),
    'avi': ('mjpeg', 'yuvj420p'),
    'flv': ('libx264', 'yuv420p'),
    'mov': ('prores_ks', 'yuv422p10le'),
}


def remuxed(source, path, last=0.0, **options):
    """The same packets in another file; the last one lasts `last` seconds."""
    with av.open(str(source)) as old, av.open(str(path), 'w', options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        packets[-1].duration = int(last / packets[-1].time_base) or packets[-1].duration
        for packet in packets:
            packet.stream = stream
            new.mux(packet)
    return path


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    """Whole files by name."""
    folder = tmp_path_factory.mktemp('films')
    for ending, (codec, pix_fmt) in MADE.items():
        encode(folder / f'film.{ending}', NOISE, codec, pix_fmt=pix_fmt)
    whole = encode(folder / 'film.mp4', NOISE)
    remuxed(whole, folder / 'front.mp4', movflags='faststart')
    remuxed(whole, folder / 'fragments.mp4', movflags='frag_keyframe+empty_moov')
    with VideoWriter(folder / 'film.gif', 8, (32, 32)) as video:
        video.write(NOISE)
    times = np.cumsum([0, *np.random.default_rng(1).choice([20, 40, 300], 39)])
    encode(folder / 'varies.mkv', NOISE, times=times)
    return {file.name: file for file in folder.iterdir()}


NAMES = [*(f'film.{ending}' for ending in MADE), 'film.mp4', 'front.mp4', 'fragments.mp4', 'varies.mkv', 'film.gif']


SLOW = pytest.mark.slow


@pytest.mark.parametrize('part', [pytest.param(0.3, marks=SLOW), 0.5, pytest.param(0.8, marks=SLOW)])
@pytest.mark.parametrize('name', NAMES)
def test_a_file_that_was_cut_is_refused(name, part, films, tmp_path):
    assert VideoReader(films[name]).frames == 40
    data = films[name].read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match='damaged') as refused:
        VideoReader(cut)
    if name not in ('film.mp4', 'film.mov'):  # without their index at the end these two cannot be opened at all
        assert any(character.isdigit() for character in str(refused.value).split('damaged')[1])
    outcome = prepare.clips_of(prepare.Entry(name, 'noise'), tmp_path, prepare.Settings(4, 10, (32, 32), 0))
    assert outcome.records == [] and outcome.reason == str(refused.value)


@pytest.mark.parametrize('ending', ['mp4', 'mkv', 'webm'])
def test_a_last_frame_that_stays_is_no_damage(ending, films, tmp_path):
    source = films['film.webm' if ending == 'webm' else 'film.mp4']
    reader = VideoReader(remuxed(source, tmp_path / f'film.{ending}', last=3.0))
    assert reader.frames == len(np.concatenate(list(reader))) and reader.frames in (40, 39 + 75)


def test_a_stream_that_states_nothing_is_no_damage(films, tmp_path):
    class Pipe:
        """A file that cannot go back, so nothing is stated in the header."""

        def __init__(self, path):
            self.file = open(path, 'wb')  # noqa: SIM115
            self.write, self.close = self.file.write, self.file.close

    for kind in ('matroska', 'webm', 'flv'):
        path = tmp_path / f'film.{kind}'
        with av.open(str(films['film.webm' if kind == 'webm' else 'film.mp4'])) as old:
            pipe = Pipe(path)
            with av.open(pipe, 'w', format=kind) as new:
                stream = new.add_stream_from_template(old.streams.video[0])
                for packet in old.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        new.mux(packet)
            pipe.close()
        assert VideoReader(path).frames == 40


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('bikes.mp4', marks=SLOW),
        pytest.param('bigbuckbunny.mp4', marks=SLOW),
        'carphone_pristine.mp4',
        'carphone_distorted.mp4',
    ],
)
def test_real_clips_are_whole(name):
    reader = VideoReader(shipped(name))
    assert reader.notes == [] and reader.fps in (25, 30000 / 1001)
    assert reader.frames == sum(1 for _ in timed_frames(shipped(name)))


def test_claims_beyond_all_memory_are_refused(tmp_path):
    (tmp_path / 'huge.y4m').write_bytes(b'YUV4MPEG2 W20000 H20000 F25:1 C420\nFRAME\n' + bytes(1000))
    encode(tmp_path / 'wide.mp4', numbered(1), sample_aspect_ratio=Fraction(16, 15))
    assert VideoReader(tmp_path / 'wide.mp4').size == (32, 34)
    data = (tmp_path / 'wide.mp4').read_bytes()
    shape = data.index(b'pasp') + 4
    (tmp_path / 'wide.mp4').write_bytes(data[:shape] + b'\x0f\xff\xff\xff\0\0\0\1' + data[shape + 8 :])
    for name in ('huge.y4m', 'wide.mp4'):
        with pytest.raises(InputError):
            VideoReader(tmp_path / name)


def test_a_playlist_opens_no_network_and_a_pipe_is_named(tmp_path):
    (tmp_path / 'list.m3u8').write_text('#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n')
    with pytest.raises(InputError):
        VideoReader(tmp_path / 'list.m3u8')
    with pytest.raises(InputError, match='it is not a file; what comes through a pipe must be saved first'):
        VideoReader('/dev/null')


def mutated(data, random):
    """The bytes with flipped bits, an end that is missing, a run put in or taken out, lies in the header, or noise."""
    data = bytearray(data)
    first, last = sorted(random.integers(0, len(data), 2))
    match random.integers(6):
        case 0:
            for place in random.integers(0, len(data), random.integers(1, 40)):
                data[place] ^= 1 << random.integers(8)
        case 1:
            del data[first:]
        case 2:
            data[first:first] = random.bytes(random.integers(1, 500))
        case 3:
            del data[first:last]
        case 4:
            for place in random.integers(0, min(len(data), 800), 3):
                data[place : place + 4] = random.choice(
                    [b'\xff\xff\xff\xff', b'\x7f\xff\xff\xff', b'\0\0\0\0', b'\0\1\0\0']
                )
        case 5:
            data[random.integers(4, 60) :] = random.bytes(len(data))
    return bytes(data)


@pytest.mark.slow
def test_three_hundred_damaged_files_are_read_or_refused(films, tmp_path):
    sources = {name: file.read_bytes() for name, file in films.items()}
    with VideoWriter(tmp_path / 'ours.mp4', 8, (32, 32)) as video:
        video.write(NOISE[:9])
    sources['ours.mp4'] = (tmp_path / 'ours.mp4').read_bytes()
    for ending in ('png', 'jpg', 'webp', 'tif', 'bmp'):
        Image.fromarray(NOISE[0]).save(tmp_path / f'0.{ending}')
        sources[f'0.{ending}'] = (tmp_path / f'0.{ending}').read_bytes()
    outcomes = {'read': 0, 'refused': 0}
    for number in range(300):
        name = sorted(sources)[number % len(sources)]
        folder = tmp_path / str(number)
        folder.mkdir()
        file = folder / name
        file.write_bytes(mutated(sources[name], np.random.default_rng([7, number])))
        video = folder if name.startswith('0.') else file
        for read in (read_video, lambda path: list(timed_frames(path)), lambda path: read_metadata(file)):
            try:
                read(video)
                outcomes['read'] += 1
            except InputError as error:
                assert '\n' not in str(error)
                outcomes['refused'] += 1
    assert min(outcomes.values()) > 200, outcomes


def test_a_name_that_is_not_there_is_named():
    for path in ('no.mp4', Path('no/')):
        for read in (VideoReader, lambda path: list(timed_frames(path))):
            with pytest.raises(InputError, match=f'cannot read {path}: there is no such file'):
                read(path)
