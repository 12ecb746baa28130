"""`st2v evaluate --videos`: what is refused before the work, what is measured once, what is told and skipped."""

import json

import numpy as np
import pytest

pytest.importorskip('cv2')
pytest.importorskip('scenedetect')

from known_videos import panning  # noqa: E402

from st2v_jax.cli.evaluate_videos import measure_all  # noqa: E402
from st2v_jax.cli.run import main  # noqa: E402
from st2v_jax.evaluation import given_videos, measuring, results  # noqa: E402
from st2v_jax.evaluation.instruments import WEIGHT_FREE  # noqa: E402
from st2v_jax.video_io import VideoWriter, read_metadata  # noqa: E402

CHEAP = ('--metrics', 'steadiness,scuts')


def evaluate(*words):
    return main(['evaluate', *map(str, words)])


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / 'given'
    folder.mkdir()
    for number in range(3):
        write(folder / f'{number}.mp4', number)
    return folder


def write(path, seed=0, prompt='a ball'):
    with VideoWriter(path, 8, (32, 32), {'prompt': prompt, 'seed': seed}) as video:
        video.write(panning(6, size=32, seed=seed))


@pytest.fixture
def measured(monkeypatch):
    """The names of the files that are measured, with the instruments."""
    seen, real = [], measuring.measure

    def measure(path, instruments, *more, **options):
        seen.append((path.name, [each.name for each in instruments]))
        return real(path, instruments, *more, **options)

    monkeypatch.setattr(measuring, 'measure', measure)
    return seen


def test_the_name_of_the_study_may_be_left_out(videos, tmp_path):
    assert evaluate('--videos', videos, '--output', tmp_path / 'a', *CHEAP) == 0
    assert evaluate('videos', '--videos', videos, '--output', tmp_path / 'b', *CHEAP) == 0
    assert (tmp_path / 'a' / 'table.csv').read_text() == (tmp_path / 'b' / 'table.csv').read_text()
    assert {path.name for path in (tmp_path / 'a').iterdir()} == {'videos.jsonl', 'table.md', 'table.csv', 'curves.png'}


def test_a_line_says_what_the_video_is_and_how_it_was_measured(videos, tmp_path):
    assert evaluate('--videos', videos / '1.mp4', '--output', tmp_path / 'r', *CHEAP) == 0
    line = json.loads((tmp_path / 'r' / 'videos.jsonl').read_text())
    assert (line['file'], line['prompt'], line['seed'], line['frames']) == ('1.mp4', 'a ball', 1, 6)
    assert (line['fps'], line['size'], line['bytes']) == (8.0, [32, 32], (videos / '1.mp4').stat().st_size)
    assert set(line['measured']['scuts']['versions']) == {'st2v_jax', 'cv2', 'scenedetect'}


def test_what_is_measured_is_not_measured_again(videos, tmp_path, measured):
    out = tmp_path / 'r'
    again = lambda *more: evaluate('--videos', videos, '--output', out, *more)
    assert again(*CHEAP) == 0 and len(measured) == 3
    assert again(*CHEAP) == 0 and len(measured) == 3
    assert again('--metrics', 'steadiness,colour') == 0 and measured[3:] == [(f'{n}.mp4', ['colour']) for n in range(3)]
    assert 'scuts' in results.read(out)[0]['0.mp4']['measured']
    assert again('--metrics', 'steadiness', '--size', 16) == 0 and len(measured) == 9
    write(videos / '1.mp4', seed=7)
    assert again('--metrics', 'steadiness', '--size', 16) == 0 and measured[9:] == [('1.mp4', ['steadiness'])]
    assert list(results.read(out)[0]['1.mp4']['measured']) == ['steadiness']  # the rest was of the file before


def test_several_at_once_are_measured_as_one_after_the_other(videos, tmp_path, measured):
    (videos / '3.mp4').write_bytes(b'no video')
    given, instruments = given_videos.find([str(videos)]), [each for each in WEIGHT_FREE if each.name == 'steadiness']
    for at_once in (1, 3):
        measure_all(tmp_path / str(at_once), given, instruments, quiet=True, at_once=at_once)
    one, several = ((tmp_path / name / 'videos.jsonl').read_text() for name in ('1', '3'))
    assert one == several and one.count('\n') == 3 and len(measured) == 8


def test_a_killed_run_loses_one_video(videos, tmp_path, measured, capsys):
    out = tmp_path / 'r'
    assert evaluate('--videos', videos, '--output', out, *CHEAP) == 0
    file = results.file_of(out)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1] + lines[2][:40])
    assert evaluate('--videos', videos, '--output', out, *CHEAP) == 0
    assert [name for name, _ in measured[3:]] == ['2.mp4'] and '1 damaged line left out' in capsys.readouterr().err
    assert len(file.read_text().splitlines()) == 3


def test_unreadable_videos_are_told_and_skipped(videos, tmp_path, capsys):
    (videos / 'bad.mp4').write_bytes(b'junk')
    with VideoWriter(videos / 'short.mp4', 8, (32, 32)) as video:
        video.write(np.zeros((1, 32, 32, 3), np.uint8))
    assert evaluate('--videos', videos, '--output', tmp_path / 'r', *CHEAP) == 0
    printed = capsys.readouterr()
    assert 'bad.mp4: it is not a video' in printed.err and 'short.mp4: it has one frame' in printed.err
    assert '3 measured, 0 measured before, 2 not readable' in printed.out
    assert evaluate('--videos', videos / 'bad.mp4', '--output', tmp_path / 's', *CHEAP) == 2
    assert 'error: none of 1 videos could be read' in capsys.readouterr().err


def test_shards_measure_every_video_once_and_a_last_run_joins_them(videos, tmp_path, measured):
    out = tmp_path / 'r'
    for shard in ('1/2', '2/2'):
        assert evaluate('--videos', videos, '--output', out, '--shard', shard, *CHEAP) == 0
    assert sorted(name for name, _ in measured) == ['0.mp4', '1.mp4', '2.mp4'] and not (out / 'table.md').exists()
    assert evaluate('--videos', videos, '--output', out, *CHEAP) == 0 and len(measured) == 3
    assert set(results.read(out)[0]) == {'0.mp4', '1.mp4', '2.mp4'} and not results.shards_in(out)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (('--metrics', 'mawe,beauty'), "--metrics are some of mawe,scuts,.*, not 'beauty'"),
        (('--metrics', 'clip'), 'clip needs --clip FOLDER'),
        (('--metrics', 'lpips'), 'lpips needs --lpips FILE FILE'),
        (('--metrics', 'i3d'), 'i3d needs --i3d FILE'),
        (('--metrics', 'i3d', '--i3d', 'odd.jsonl'), "odd.jsonl: pickle at byte 0, opcode at byte 0: opcode b'{'"),
        (('--metrics', 'reid'), 'reid needs --faces FILE.py:FUNCTION'),
        (('--metrics', 'reid', '--faces', 'odd.jsonl'), "an embedder is FILE.py:FUNCTION, not 'odd.jsonl'"),
        (('--metrics', 'reid', '--faces', 'none.py:f'), 'none.py: No such file'),
        (('--metrics', 'mawe', '--flow', 'none.pth'), 'none.pth: No such file'),
        (('--metrics', 'mawe', '--flow', 'odd.jsonl'), 'odd.jsonl is text, not the file itself'),
        (('--reference', '.'), '--reference is what --videos are compared with'),
        (('--prompts', 'none.jsonl'), 'none.jsonl: No such file'),
        (('--vbench', 'v', '--prompts', 'odd.jsonl'), 'odd.jsonl, line 1'),
    ],
)
def test_what_an_instrument_lacks_is_told_before_anything_is_measured(
    options, words, videos, tmp_path, measured, capsys, monkeypatch
):
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'odd.jsonl').write_text('{"file": "0.mp4"}')
    assert evaluate('--videos', videos, '--output', 'r', *options) == 2
    printed = capsys.readouterr().err
    assert re.match(f'error: {words}', printed) and printed.count('\n') == 1
    assert not measured and not (tmp_path / 'r').exists()


def test_the_table_names_the_flow_and_another_one_is_measured_again(videos, tmp_path, measured, monkeypatch):
    from st2v_jax.evaluation import raft_flow
    from st2v_jax.evaluation.instruments import Flow
    from st2v_jax.metrics.flow import flows

    monkeypatch.setattr(raft_flow, 'flow', lambda file: Flow(flows, {'flow': 'RAFT-Large', 'weights': file}))
    line = ('--videos', videos / '0.mp4', '--output', tmp_path / 'r', '--metrics', 'mawe,motion,ssim', '--size', 32)
    assert evaluate(*line) == 0 and 'RAFT' not in (tmp_path / 'r' / 'table.md').read_text()
    assert evaluate(*line, '--flow', 'raft.pth') == 0 == evaluate(*line, '--flow', 'raft.pth')
    assert measured[1:] == [('0.mp4', ['mawe', 'motion'])]
    assert (tmp_path / 'r' / 'table.md').read_text().count('flow RAFT-Large, weights raft.pth') == 2


def test_a_missing_extra_is_told(videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name != 'scenedetect' or None)
    assert evaluate('--videos', videos, '--output', tmp_path / 'r', *CHEAP) == 2
    assert capsys.readouterr().err == "error: scenedetect is not installed: pip install 'st2v_jax[evaluate]'\n"


def test_seams_are_measured_where_chunks_are_joined(tmp_path):
    jumping = np.uint8(panning(14, 1, 32) // 2 + 20 * (np.arange(14) >= 6)[:, None, None, None])
    with VideoWriter(f'{tmp_path}/frames/', 8, (32, 32)) as video:
        video.write(jumping)
    ratio = {}
    for chunks in ('6,4', '7,4', '20,8'):
        out = tmp_path / chunks
        options = ('--metrics', 'steadiness', '--chunks', chunks, '--output', out)
        assert evaluate('--videos', tmp_path / 'frame*', *options) == 0
        ratio[chunks] = results.numbers(results.read(out)[0]['frames'])['border_ratio']
    assert ratio['6,4'] > 3 and ratio['7,4'] < 1 and ratio['20,8'] is None


@pytest.mark.parametrize('chunks', ['8', '0,8', '8,0', 'a,b', '8,8,8'])
def test_chunks_are_two_numbers(chunks, videos, capsys):
    with pytest.raises(SystemExit):
        evaluate('--videos', videos, '--chunks', chunks)
    assert 'must be N,M' in capsys.readouterr().err


@pytest.mark.parametrize('shard', ['0/2', '3/2', '1', 'a/b', '1/0'])
def test_a_shard_is_i_of_n(shard, videos, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate('--videos', videos, '--shard', shard)
    assert stop.value.code == 2 and 'must be i/n' in capsys.readouterr().err


def test_methods_are_compared_from_results_and_from_videos(videos, tmp_path):
    assert evaluate('--videos', videos, '--output', tmp_path / 'ours', *CHEAP) == 0
    assert evaluate('--compare', tmp_path / 'ours', videos, '--output', tmp_path / 'c', *CHEAP) == 0
    text = (tmp_path / 'c' / 'comparison.md').read_text()
    assert '| 0 | 0 to 0 | 3 |' in text and (tmp_path / 'c' / 'given' / 'table.md').exists()


@pytest.mark.parametrize('folders', [('a',), ('a', 'b/a')])
def test_what_is_compared_has_different_names(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluate('--compare', *folders, '--output', tmp_path / 'c') == 2
    assert '--compare takes two or more folders with different names' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures('unoptimised')
def test_the_protocol_makes_a_row_and_repeats_nothing(tiny_folder, tmp_path, capsys, measured):
    prompts = tmp_path / 'prompts.txt'
    prompts.write_text('a red ball moves left\na blue star moves left\n')
    row = tmp_path / 'row'
    options = ('--weights', tiny_folder, '--clip', tiny_folder, '--prompts-file', prompts, '--num-frames', 20)
    command = ('protocol', *options, '--steps', 1, '--size', 48, '--output', row)
    assert evaluate(*command, '--shard', '2/2') == 0
    assert [path.name for path in (row / 'videos').iterdir()] == ['001.mp4']
    assert evaluate(*command) == 0
    stored = [read_metadata(row / 'videos' / f'00{n}.mp4')['prompt'] for n in range(2)]
    assert stored == prompts.read_text().splitlines() and sorted(name for name, _ in measured) == ['000.mp4', '001.mp4']
    found = results.read(row)[0]['001.mp4']
    assert found['frames'] == 20 and list(results.numbers(found, ['mawe', 'scuts', 'clip']))[:3] == [
        'mawe',
        'mawe_paper',
        'scuts',
    ]
    assert found['measured']['clip']['settings']['prompt'] == stored[1]
    times = [path.stat().st_mtime_ns for path in sorted((row / 'videos').iterdir())]
    assert evaluate(*command) == 0 and len(measured) == 2
    assert [path.stat().st_mtime_ns for path in sorted((row / 'videos').iterdir())] == times
    assert '2 of 2 videos are made' in capsys.readouterr().out
    (row / 'videos' / '000.mp4').write_bytes((row / 'videos' / '000.mp4').read_bytes()[:3000])  # as after a kill
    assert evaluate(*command) == 0 and [name for name, _ in measured[2:]] == ['000.mp4']


def test_the_protocol_needs_a_clip_before_it_makes_videos(tmp_path, capsys):
    assert evaluate('protocol', '--output', tmp_path / 'row') == 2
    assert capsys.readouterr().err.startswith('error: clip needs --clip FOLDER') and not (tmp_path / 'row').exists()
