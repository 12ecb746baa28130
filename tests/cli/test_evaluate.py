"""`st2v evaluate` from the checker to the page, with an untrained model."""

import json

import numpy as np
import pytest

from st2v_jax.cli.run import main
from st2v_jax.evaluation import pictures
from st2v_jax.video_io import read_video

pytestmark = pytest.mark.usefixtures('unoptimised')
pytest.importorskip('cv2')


def evaluate(*words):
    return main(['evaluate', *map(str, words)])


@pytest.fixture(scope='module')
def checker(tmp_path_factory):
    path = tmp_path_factory.mktemp('checker') / 'checker.npz'
    assert evaluate('train-checker', '--checker', path, '--size', 32, '--tiny', '--steps', 2) == 0
    return path


@pytest.mark.slow
def test_from_captions_to_the_page(checker, tiny_folder, tmp_path, capsys):
    out, again, page = tmp_path / 'out', tmp_path / 'again.json', tmp_path / 'page.md'
    options = ('--captions', 3, '--frames', 20, '--steps', 1, '--sheet', 2, '--keep', 2, '--nearest', 2)
    assert evaluate('generate', '--weights', tiny_folder, '--checker', checker, '--out', out, *options) == 0
    assert {path.name for path in out.iterdir()} == {
        'results.json',
        'contact-sheet.jpg',
        'slices.jpg',
        'nearest.jpg',
        'videos.npz',
        'videos',
    }
    assert [read_video(path).shape[0] for path in sorted((out / 'videos').iterdir())] == [20, 20, 20]
    results, stamp = json.loads((out / 'results.json').read_text()), (out / 'results.json').stat().st_mtime_ns
    assert results['made']['captions'] == 3 and list(results['places']) == ['8', '20'] and len(results['videos']) == 3

    assert evaluate('generate', '--weights', tiny_folder, '--checker', checker, '--out', out, *options) == 0
    assert 'results.json is complete' in capsys.readouterr().out
    assert (out / 'results.json').stat().st_mtime_ns == stamp

    assert evaluate('measure', '--videos', out / 'videos.npz', '--checker', checker, '--output', again) == 0
    kept = json.loads(again.read_text())
    assert [video['caption'] for video in kept['videos']] == [video['caption'] for video in results['videos'][:2]]

    assert evaluate('report', '--results', out / 'results.json', '--output', page) == 0
    assert results['videos'][0]['caption'] in page.read_text() and results['made']['command'] in page.read_text()
    assert 'identity' in capsys.readouterr().out


@pytest.mark.slow
def test_methods_are_made_measured_and_put_side_by_side(checker, tiny_folder, tmp_path, capsys):
    out = tmp_path / 'out'
    words = ['--checker', checker, '--output', out, '--captions', 2, '--frames', 24, '--steps', 1]
    words += [f'--method=ours=streaming:{tiny_folder}', f'--method=apart=apart:{tiny_folder}']
    words += ['--metrics', 'steadiness,sharpness', '--quiet', '--json', tmp_path / 'stored' / 'ways.json']
    assert evaluate('methods', *words) == 0
    text = (out / 'comparison.md').read_text()
    for number in ('all', 'flow', 'identity', 'border_ratio', 'sharpness'):
        assert f'| {number} | ours |' in text and f'| {number} | apart |' in text
    assert 'differ' not in text.split('## ')[0].split('Differences are')[0]
    read = lambda name: [json.loads(line) for line in (out / name / 'videos.jsonl').read_text().splitlines()]
    lines = {name: read(name) for name in ('ours', 'apart')}
    chunks = {name: found[0]['measured']['steadiness']['settings']['chunks'] for name, found in lines.items()}
    assert chunks == {'ours': [16, 8], 'apart': [16, 16]}
    assert [line['prompt'] for line in lines['ours']] == [line['prompt'] for line in lines['apart']]
    stored = json.loads((tmp_path / 'stored' / 'ways.json').read_text())
    assert {path.name for path in (tmp_path / 'stored').iterdir()} == {
        'ways.json', 'ways-frames.jpg', 'ways-slices.jpg'
    }  # fmt: skip
    assert stored['made']['prompts'] == [line['prompt'] for line in lines['ours']]
    for name, method in stored['methods'].items():
        ratios = [line['measured']['steadiness']['numbers']['border_ratio'] for line in lines[name]]
        assert method['numbers']['border_ratio'] == pytest.approx(ratios, rel=1e-3)
        assert len(method['numbers']['identity_24']) == 2 and method['numbers']['identity_8'] == pytest.approx(
            [1, 1], abs=1e-3
        )
    capsys.readouterr()
    assert evaluate('methods', *words) == 0 and capsys.readouterr().out.count('is complete') == 2


@pytest.mark.parametrize(
    'words', [('a',), ('a', 'a=apart'), ('a', 'b=together'), ('a', '../b'), ('a', '=apart'), ('a', '.b')]
)
def test_methods_have_names_of_their_own_and_ways_that_exist(words, tmp_path, capsys):
    argv = [f'--method={word}' for word in words] + ['--checker', 'c.npz', '--output', tmp_path / 'out']
    try:
        assert evaluate('methods', *argv) == 2
    except SystemExit as stop:
        assert stop.code == 2
    assert capsys.readouterr().err.startswith('error: ') and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_from_videos_to_the_page_about_refinement(tiny_folder, tmp_path):
    out, page = tmp_path / 'out', tmp_path / 'page.md'
    options = ('--frames', 22, '--captions', 2, '--world', 1, '--steps', 1, '--variants', 'B', 'paper')
    assert evaluate('refine', '--weights', tiny_folder, '--out', out, *options) == 0
    results = json.loads((out / 'results.json').read_text())
    names = [f'{name}-{kind}.jpg' for name in ('generated', 'world') for kind in ('slices', 'frames')]
    assert {path.name for path in out.iterdir()} == {'results.json', 'videos.npz', *names}
    assert list(results['generated']['kinds']) == ['input', 'B', 'paper']
    assert list(results['world']['kinds']) == ['input', 'B', 'paper', 'truth']
    assert len(results['generated']['kinds']['B']['flow_deviation']) == 2 and results['made']['settings']['steps'] == 1
    assert evaluate('refinement-report', '--results', out / 'results.json', '--output', page) == 0
    assert all(name in page.read_text() for name in (*names, 'ground truth', '8.72'))


@pytest.mark.parametrize('study', ['generate', 'measure', 'refine'])
def test_what_measures_motion_is_asked_for_before_anything_is_made(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    options = {
        'generate': ('--checker', 'c.npz', '--out', tmp_path / 'out'),
        'refine': ('--out', tmp_path / 'out'),
        'measure': ('--checker', 'c.npz', '--videos', 'v.npz', '--output', tmp_path / 'out'),
    }
    assert evaluate(study, *options[study]) == 2
    assert capsys.readouterr().err == "error: cv2 is not installed: pip install 'st2v_jax[evaluate]'\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (('generate', '--checker', 'none.npz', '--out', 'x'), 'none.npz: No such file'),
        (('report', '--results', 'none.json', '--output', 'x'), 'none.json: No such file'),
    ],
)
def test_a_missing_file_is_one_line_and_code_2(argv, words, capsys):
    assert evaluate(*argv) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f'error: {words}') and printed.count('\n') == 1


def test_a_variant_that_does_not_exist_is_refused(tiny_folder, tmp_path, capsys):
    assert evaluate('refine', '--weights', tiny_folder, '--out', tmp_path / 'out', '--variants', 'B', 'S') == 2
    assert "variant is one of ('B', 'B+S', 'paper', 'release'), not 'S'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_numbers_below_one_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate('generate', '--checker', 'c', '--out', 'o', '--frames', 0)
    assert stop.value.code == 2
    assert 'argument --frames: must be a whole number of at least 1, not' in capsys.readouterr().err


def test_videos_of_another_size_than_the_checker_are_refused(checker, tmp_path, capsys):
    pictures.keep(tmp_path / 'videos.npz', np.zeros((1, 16, 64, 64, 3), np.uint8), np.array([0]), 0)
    output = tmp_path / 'x.json'
    assert evaluate('measure', '--videos', tmp_path / 'videos.npz', '--checker', checker, '--output', output) == 2
    assert 'trained on 32 pixels, but the videos have 64' in capsys.readouterr().err
