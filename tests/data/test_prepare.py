"""Videos become clips: cuts, frame rate, size, what is left out, and what remains after a kill."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from data.videos import FPS, scene, shipped, write, write_folder
from video_io.films import encode, numbered, numbers

from st2v_jax.cli.run import main
from st2v_jax.data import clips, prepare
from st2v_jax.stopping import Stopped
from st2v_jax.video_io import timed_frames

SMALL = prepare.Settings(frames=4, size=(32, 32), videos_per_shard=2)
ROOT = Path(__file__).parents[2]
OPTIONS = ('--frames', '4', '--size', '32', '--videos-per-shard', '2', '--workers', '1')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('made') / 'videos')


@pytest.fixture(scope='module')
def prepared(videos, tmp_path_factory):
    output = tmp_path_factory.mktemp('prepared') / 'clips'
    assert main(['prepare-data', '--videos', str(videos), '--output', str(output), *OPTIONS, '--quiet']) == 0
    return output


def test_no_sample_of_a_real_film_holds_a_cut():
    rate, cuts = 25, np.array([30, 76, 137, 187, 242])  # of bikes.mp4, found by eye
    for frames, fps in ((4, 3.0), (2, 3.0), (8, 12.5)):
        settings = prepare.Settings(frames=frames, fps=fps, size=(64, 64))
        found = list(prepare.samples(shipped('bikes.mp4'), settings))
        assert len(found) >= 5
        for start, sample in found:
            first, last = start * rate, start * rate + round((frames - 1) * rate / fps)
            assert sample.shape == (frames, 64, 64, 3)
            assert not ((cuts > first) & (cuts <= last)).any(), (first, last)
    lost = 250 // 2 - frames * len(found)
    assert lost < (len(cuts) + 1) * frames  # at most one unfinished clip for each scene


def test_one_real_take_is_not_cut():
    found = list(prepare.samples(shipped('carphone_pristine.mp4'), prepare.Settings(frames=12)))
    assert len(found) == 1 and 3 < prepare.mean_flow(found[0][1]) < 12


def test_frames_are_those_nearest_to_thirds_of_seconds(tmp_path):
    grey = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8) * 2
    for fps in (3, 10, 29.97):
        write(tmp_path / 'grey.mp4', grey, fps=fps)
        settings = prepare.Settings(frames=3, size=(32, 32))
        numbers = np.concatenate(
            [sample.mean((1, 2, 3)) / 2 for _, sample in prepare.samples(tmp_path / 'grey.mp4', settings)]
        )
        wanted = np.round(np.arange(len(numbers)) * fps / 3)
        np.testing.assert_allclose(numbers, wanted, atol=1.1)  # error of the codec
        assert len(numbers) >= 100 / fps * 3 - 5


def test_a_varying_rate_is_sampled_by_its_times(tmp_path):
    times = np.cumsum([0, *([40] * 12), 300, 300, *([20] * 12), 200])
    encode(tmp_path / 'film.mkv', numbered(len(times)), times=times)
    settings = prepare.Settings(frames=2, fps=4, size=(32, 32))
    found = list(prepare.samples(tmp_path / 'film.mkv', settings))
    assert [start for start, _ in found] == pytest.approx([0, 0.48, 1.08])  # those nearest to 0, 0.5 and 1
    wanted = [np.abs(times - 1000 * number / 4).argmin() for number in range(6)]
    np.testing.assert_allclose(numbers(np.concatenate([frames for _, frames in found])), wanted, atol=1)


@pytest.mark.parametrize('shape', [(48, 64), (64, 48), (240, 320), (31, 200)])
@pytest.mark.parametrize('size', [(64, 64), (96, 64), (64, 128)])
def test_the_middle_of_a_frame_is_kept_with_its_aspect(shape, size):
    frame = np.zeros((*shape, 3), np.uint8)
    middle = tuple(side // 2 for side in shape[::-1])
    cv2.circle(frame, middle, min(shape) // 4, (255, 255, 255), -1)
    made = prepare.resize_and_crop(frame, size)
    assert made.shape == (*size, 3)
    bright = np.argwhere(made[..., 0] > 127)
    scale = max(new / old for new, old in zip(size, shape))
    diameter = 2 * (min(shape) // 4) * scale
    assert np.abs(bright.mean(0) - np.array(size) / 2 + 0.5).max() < 2 + scale / 2
    if diameter < min(size):
        height, width = np.ptp(bright, axis=0)
        assert abs(height - width) <= 2 and abs(height - diameter) <= 4 + scale


def test_only_good_samples_are_kept_and_the_rest_is_listed(prepared):
    folder = clips.Folder(prepared)
    about = [(clip.file, clip.caption, round(clip.start, 2), len(clip)) for clip in map(folder.__getitem__, range(5))]
    assert about == [
        ('cut.mp4', 'cut blocks', 0, 4),
        ('cut.mp4', 'cut blocks', 1.33, 4),
        ('cut.mp4', 'cut blocks', 3, 4),
        ('cut.mp4', 'cut blocks', 4.33, 4),
        ('long.mp4', 'long blocks', 0, 4),
    ]
    lines = map(json.loads, (prepared / 'skipped.jsonl').read_text().splitlines())
    reasons = {line['file']: line['reason'] for line in lines}
    assert list(reasons) == [f'{name}.mp4' for name in ('still', 'short', 'slow', 'text', 'damaged', 'missing')]
    assert reasons['still.mp4'] == 'all 2 clips stand still'
    assert reasons['short.mp4'] == 'no scene lasts 4 frames at 3 per second'
    assert reasons['slow.mp4'] == 'the file has 1 frames per second, but clips need 3'
    assert 'it is not a video' in reasons['text.mp4'] and 'it is damaged after' in reasons['damaged.mp4']
    assert 'there is no such file' in reasons['missing.mp4']


def test_frames_come_back_from_their_files(prepared, videos):
    clip = clips.Folder(prepared)[2]
    frames = [shot.frame for shot in timed_frames(videos / 'cut.mp4')][36:48:4]
    whole = np.stack([prepare.resize_and_crop(frame, (32, 32)) for frame in frames])
    kept = clip.frames([0, 1, 2])
    assert kept.dtype == np.uint8 and np.abs(kept - whole.astype(float)).mean() < 3
    np.testing.assert_array_equal(clip.frames([2, 1]), kept[[2, 1]])


def test_killed_and_continued_equals_undisturbed(prepared, videos, tmp_path):
    output = tmp_path / 'clips'
    # the third video blocks, so that the kill hits the second shard
    program = (
        'import sys; from st2v_jax.data import prepare; from st2v_jax.cli.run import main\n'
        'whole = prepare.clips_of\n'
        'def clips_of(entry, **rest):\n'
        '    if entry.file == "slow.mp4": import time; print("here", flush=True); time.sleep(60)\n'
        '    return whole(entry, **rest)\n'
        'prepare.clips_of = clips_of\n'
        'main(["prepare-data", *sys.argv[1:]])'
    )
    arguments = ['--videos', str(videos), '--output', str(output), *OPTIONS, '--quiet']
    run = subprocess.Popen([sys.executable, '-c', program, *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    assert run.stdout.readline() == b'here\n'
    run.send_signal(signal.SIGKILL)
    run.communicate()
    finished = output / '00000.array_record'
    assert finished.is_file() and (output / '00001.part').is_file() and not (output / '00001.array_record').exists()
    with pytest.raises(ValueError, match='clips is not finished: run st2v prepare-data again'):
        clips.Folder(output)
    time_of_first = finished.stat().st_mtime_ns
    assert main(['prepare-data', *arguments]) == 0
    assert finished.stat().st_mtime_ns == time_of_first
    for file in (*prepared.glob('*.json'), prepared / 'skipped.jsonl'):
        assert (output / file.name).read_text() == file.read_text()
    assert shards(prepared) == shards(output)
    assert not list(output.glob('*.part'))


def test_a_lost_shard_is_named_and_made_again(prepared, videos, tmp_path):
    output = shutil.copytree(prepared, tmp_path / 'clips')
    shard = output / '00003.array_record'
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(ValueError, match='00003.array_record is in the index but missing: run st2v '):
        clips.Folder(output)
    assert main(['prepare-data', '--videos', str(videos), '--output', str(output), *OPTIONS, '--quiet']) == 0
    assert shard.read_bytes() == whole and len(clips.Folder(output)) == 7


def test_ctrl_c_is_one_line_that_goes_on(videos, capsys, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(prepare, 'clips_of', stop)
    code, line = said(capsys, '--videos', videos, '--output', tmp_path / 'clips', *OPTIONS)
    assert code == 130 and line.startswith('stopped: what is finished stays; again: st2v prepare-data ')
    assert f'--output {tmp_path / "clips"} --frames 4' in line and not (tmp_path / 'clips' / clips.INDEX).exists()


def test_a_missing_library_says_what_to_install(videos, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    code, line = said(capsys, '--videos', videos, '--output', tmp_path / 'clips')
    assert (code, line) == (2, "error: scenedetect is not installed: pip install 'st2v_jax[train]'")


@pytest.mark.slow
def test_processes_make_the_same_files(prepared, videos, tmp_path):
    arguments = ['--videos', videos, '--output', tmp_path / 'clips', *OPTIONS[:-1], '2', '--quiet']
    subprocess.run([sys.executable, '-m', 'st2v_jax', 'prepare-data', *map(str, arguments)], cwd=ROOT, check=True)
    assert shards(prepared) == shards(tmp_path / 'clips')


def shards(folder):
    """The bytes of the records' files by name."""
    return {file.name: file.read_bytes() for file in folder.glob('*.array_record')}


def said(capsys, *argv):
    """(exit code, last line printed) of the command."""
    try:
        code = main(['prepare-data', *map(str, argv)])
    except SystemExit as leave:
        code = leave.code
    out, err = capsys.readouterr()
    return code, (err if code else out).strip().splitlines()[-1]


def test_what_is_said(prepared, videos, capsys, tmp_path):
    code, line = said(capsys, '--videos', videos, '--output', prepared, *OPTIONS)  # all shards exist already
    assert (code, line) == (0, f'7 clips of 4 frames in {prepared}; dropped 2 that stood still')
    code, line = said(capsys, '--videos', videos, '--output', prepared, '--frames', '5', *OPTIONS[2:])
    assert (code, line) == (
        2,
        f'error: {prepared} was begun with frames=4 instead of 5: choose another folder, or delete this one',
    )
    code, line = said(capsys, '--videos', videos, '--output', tmp_path / 'none', '--workers', '1', '--quiet')
    assert (code, line) == (1, f'error: no video gave a clip; {tmp_path / "none" / "skipped.jsonl"} says why')
    assert not (tmp_path / 'none' / clips.INDEX).exists()


@pytest.mark.parametrize(
    'captions, message',
    [
        (None, 'No such file or directory'),
        ('', 'names no videos'),
        ('{"file": "a.mp4"}', """line 1: a line must be {"file": "...", "caption": "..."}, not '{"file": "a.mp4"}'"""),
        ('{"file": "a.mp4", "caption": "ball"}\n\nball', 'line 3: not a JSON object: Expecting value, column 1'),
        ('{"file": "a.mp4", "caption": " "}', 'line 1'),
    ],
)
def test_bad_captions_are_one_line_and_exit_code_2(captions, message, capsys, tmp_path):
    if captions is not None:
        (tmp_path / 'captions.jsonl').write_text(captions)
    code, line = said(capsys, '--videos', tmp_path, '--output', tmp_path / 'out')
    assert code == 2 and line.startswith('error: ') and message in line
    assert not (tmp_path / 'out').exists()


BALL = '{"file": "a.mp4", "caption": "ball"}'


@pytest.mark.parametrize(
    'data, message',
    [
        (
            f'{BALL}\n{{"file": "b.mp4", "caption": "caf\xe9"}}'.encode('latin-1'),
            'line 2: byte 0xe9 is not UTF-8: save',
        ),
        (f'{BALL}\n["a.mp4", "ball"]'.encode(), 'line 2: a JSON object is expected, got list of 2'),
        (f'{BALL}\n\n{BALL}'.encode(), 'line 3: the same file and caption as in line 1'),
        (b'{"file": "a.mp4", "file": "b.mp4", "caption": "ball"}', 'line 1: not a JSON object: a key comes twice'),
        (
            b'{"file": "a.mp4", "caption": "\\ud83d"}',
            r"""line 1: a line must be {"file": "...", "caption": "..."}, not""",
        ),
        (b'{"file": "a.mp4", "caption": 7}', 'line 1: a line must be'),
        (BALL.encode('utf-16-le'), 'line 1: a NUL character'),
        (
            b'version https://git-lfs.github.com/spec/v1\noid sha256:aa',
            'line 1: is a git-lfs pointer, not the file itself',
        ),
    ],
    ids=['latin-1', 'a list', 'twice', 'a key twice', 'half a character', 'a number', 'utf-16', 'git-lfs'],
)
def test_captions_that_are_no_captions_are_told_with_file_and_line(data, message, tmp_path):
    file = tmp_path / 'captions.jsonl'
    file.write_bytes(data)
    with pytest.raises(ValueError) as error:
        prepare.read_captions(file)
    assert str(error.value).startswith(f'{file}, {message}') and '\n' not in str(error.value)


def test_captions_of_any_editor_are_read_alike(tmp_path):
    text = f'{BALL}\n{{"file": "a.mp4", "caption": "two\u2028lines"}}\n'
    for data in (b'\xef\xbb\xbf' + text.encode(), text.replace('\n', '\r\n').encode('utf-16')):
        (tmp_path / 'captions.jsonl').write_bytes(data)
        entries = prepare.read_captions(tmp_path / 'captions.jsonl')
        assert entries == [('a.mp4', 'ball'), ('a.mp4', 'two\u2028lines')], 'a video may have several captions'


def test_bad_folders_are_one_line_and_exit_code_2(videos, capsys, tmp_path):
    assert said(capsys, '--videos', 'nowhere', '--output', 'a') == (2, 'error: there is no folder nowhere')
    (tmp_path / 'file').touch()
    code, line = said(capsys, '--videos', videos, '--output', tmp_path / 'file')
    assert (code, line) == (2, f'error: cannot write {tmp_path / "file"}: it is a file, not a folder')
    for name in ('00000.array_record', clips.INDEX, prepare.SKIPPED):
        mine = tmp_path / name / name
        mine.parent.mkdir()
        mine.write_text('mine')
        code, line = said(capsys, '--videos', videos, '--output', mine.parent)
        assert (code, line) == (2, f'error: {mine.parent} holds other data: choose another folder')
        assert mine.read_text() == 'mine' and [*mine.parent.iterdir()] == [mine]


def test_a_full_disk_is_one_line_and_exit_code_1(videos, capsys, tmp_path, monkeypatch):
    def full(path, values):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(clips, 'write_json', full)
    code, line = said(capsys, '--videos', videos, '--output', tmp_path / 'clips', '--workers', '1')
    assert code == 1 and 'No space left on device; what is finished stays; again: st2v prepare-data' in line


def test_a_scene_of_blocks_moves():
    frames = np.stack([prepare.resize_and_crop(frame, (64, 64)) for frame in scene(0, 3 * FPS)[::4]])
    assert prepare.mean_flow(frames) > 2 > 0.3 > prepare.mean_flow(frames[:1].repeat(3, 0))


def test_a_full_disk_is_one_line_and_leaves_no_half_a_shard(videos, capsys, tmp_path, monkeypatch):
    from array_record.python import array_record_module

    class Full:
        """A writer on a full disk, as the library's own behaves."""

        def __init__(self, path, options):
            Path(path).touch()

        def write(self, record):
            raise RuntimeError('write() failed: No space left on device; writing clips/00000.part; at byte 36864')

        def close(self):
            raise RuntimeError('Failed to close chunk_writer')

    monkeypatch.setattr(array_record_module, 'ArrayRecordWriter', Full)
    output = tmp_path / 'clips'
    code, line = said(capsys, '--videos', videos, '--output', output, *OPTIONS)
    assert code == 1
    assert line.startswith(
        f'error: {output / "00000.part"}: write() failed: No space left on device; what is finished '
    )
    assert not list(output.glob('*.part'))
