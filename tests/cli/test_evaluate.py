"""`python evaluate.py` from a checker to the page, with a model that has learnt nothing."""

import json

import numpy as np
import pytest

from st2v_jax.cli import evaluate

pytestmark = pytest.mark.usefixtures('unoptimised')
pytest.importorskip('cv2')


@pytest.fixture(scope='module')
def checker(tmp_path_factory):
    path = tmp_path_factory.mktemp('checker') / 'checker.npz'
    assert evaluate.main(['train-checker', '--checker', str(path), '--size', '32', '--tiny', '--steps', '2']) == 0
    return path


@pytest.mark.slow
def test_from_captions_to_the_page(checker, tiny_folder, tmp_path, capsys):
    out = tmp_path / 'out'
    options = ['--captions', '3', '--frames', '20', '--steps', '1', '--sheet', '2', '--keep', '2', '--nearest', '2']
    assert evaluate.main(
        ['generate', '--weights', str(tiny_folder), '--checker', str(checker), '--out', str(out), *options]) == 0
    assert {path.name for path in out.iterdir()} == {
        'results.json', 'contact-sheet.png', 'slices.png', 'nearest.png', 'videos.npz'}
    results = json.loads((out / 'results.json').read_text())
    assert results['made']['captions'] == 3 and list(results['places']) == ['8', '20'] and len(results['videos']) == 3

    again = tmp_path / 'again.json'
    assert evaluate.main(
        ['measure', '--videos', str(out / 'videos.npz'), '--checker', str(checker), '--output', str(again)]) == 0
    kept = json.loads(again.read_text())
    assert [video['caption'] for video in kept['videos']] == [video['caption'] for video in results['videos'][:2]]

    page = tmp_path / 'page.md'
    assert evaluate.main(['report', '--results', str(out / 'results.json'), '--output', str(page)]) == 0
    assert results['videos'][0]['caption'] in page.read_text()
    assert 'identity' in capsys.readouterr().out


@pytest.mark.slow
def test_from_videos_to_the_page_about_refinement(tiny_folder, tmp_path):
    out, page = tmp_path / 'out', tmp_path / 'page.md'
    options = ['--frames', '22', '--captions', '2', '--world', '1', '--steps', '1', '--variants', 'B', 'paper']
    assert evaluate.main(['refine', '--weights', str(tiny_folder), '--out', str(out), *options]) == 0
    results = json.loads((out / 'results.json').read_text())
    names = [f'{name}-{kind}.jpg' for name in ('generated', 'world') for kind in ('slices', 'frames')]
    assert {path.name for path in out.iterdir()} == {'results.json', 'videos.npz', *names}
    assert list(results['generated']['kinds']) == ['input', 'B', 'paper']
    assert list(results['world']['kinds']) == ['input', 'B', 'paper', 'truth']
    assert len(results['generated']['kinds']['B']['flow_deviation']) == 2 and results['made']['settings']['steps'] == 1
    assert evaluate.main(['refinement-report', '--results', str(out / 'results.json'), '--output', str(page)]) == 0
    assert all(name in page.read_text() for name in (*names, 'ground truth', '8.72'))


def test_a_video_does_not_depend_on_its_batch(tiny_folder):
    from st2v_jax.streaming import generate as text_to_video

    model = text_to_video.load(tiny_folder)
    settings = model.settings(steps=1)
    prompts = ['a red ball moves left'] * 9 + ['a blue star']  # tests have eight devices: two batches
    videos = evaluate.make_videos(model, settings, prompts, 16, seed=1, batch=8)
    alone = evaluate.make_videos(model, settings, prompts[:9], 16, seed=1, batch=16)
    assert videos.shape == (10, 16, 32, 32, 3) and videos.dtype == np.uint8
    assert np.abs(videos[:9].astype(int) - alone).max() <= 1
    assert (videos[0] != videos[1]).any()


@pytest.mark.parametrize(('argv', 'words'), [
    (['generate', '--checker', 'none.npz', '--out', 'x'], 'none.npz'),
    (['report', '--results', 'none.json', '--output', 'x'], 'none.json'),
])
def test_a_missing_file_is_one_line_and_code_2(argv, words, capsys):
    assert evaluate.main(argv) == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count('\n') == 1


def test_numbers_below_one_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(['generate', '--checker', 'c', '--out', 'o', '--frames', '0'])
    assert stop.value.code == 2 and '--frames is more than 0' in capsys.readouterr().err


def test_videos_of_another_size_than_the_checker_are_refused(checker, tmp_path, capsys):
    from st2v_jax.evaluation import pictures

    pictures.keep(tmp_path / 'videos.npz', np.zeros((1, 16, 64, 64, 3), np.uint8), np.array([0]), 0)
    assert evaluate.main(['measure', '--videos', str(tmp_path / 'videos.npz'), '--checker', str(checker),
                          '--output', str(tmp_path / 'x.json')]) == 2
    assert 'trained on 32 pixels, the videos have 64' in capsys.readouterr().err
