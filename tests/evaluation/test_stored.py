"""Another file in the place of one that a study stored is told in one line, with its name and what is missing."""

import json
from pathlib import Path

import numpy as np
import pytest

from st2v_jax.cli.run import main
from st2v_jax.errors import BadInput
from st2v_jax.evaluation import checker, pictures

DOCS = Path(__file__).parents[2] / 'docs'
MODEL, REFINEMENT = DOCS / 'small-model' / 'results.json', DOCS / 'refinement' / 'results.json'
SUMMARY = next((DOCS / 'refinement' / 'training').glob('*.json'))


def told(study, results, capsys, training=()):
    """What `st2v evaluate` says to these files; nothing is written."""
    page = Path('page.md')
    assert main(['evaluate', study, '--results', str(results), '--output', str(page), '--training', *training]) == 2
    line = capsys.readouterr().err
    assert line.startswith('error: ') and line.count('\n') == 1 and not page.exists()
    return line


@pytest.mark.parametrize(
    'study, other, missing',
    [
        ('report', REFINEMENT, 'st2v evaluate generate writes: pictures, places, checker, identity, videos missing'),
        ('refinement-report', MODEL, 'st2v evaluate refine writes: generated, world missing'),
        ('report', SUMMARY, 'st2v evaluate generate writes: made, '),
        ('refinement-report', SUMMARY, 'st2v evaluate refine writes: made, generated, world missing'),
    ],
)
def test_results_of_another_study_are_told(study, other, missing, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f'{other} is not what {missing}' in told(study, other, capsys)


@pytest.mark.parametrize(
    'change, missing',
    [
        (lambda results: results['made'].pop('device'), "'device' is missing"),
        (lambda results: results['generated'].pop('kinds'), "'kinds' is missing"),
        (lambda results: results.update(generated=3), "('int' object is not subscriptable)"),
        (lambda results: results['made'].update(size=3), '(cannot unpack non-iterable int object)'),
        (lambda results: results['generated'].update(pictures=[[]]), '(list indices must be integers'),
    ],
)
def test_results_that_were_changed_are_told(change, missing, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = json.loads(REFINEMENT.read_text())
    change(results)
    Path('results.json').write_text(json.dumps(results))
    line = told('refinement-report', 'results.json', capsys)
    assert 'results.json is not what st2v evaluate refine writes' in line and missing in line


@pytest.mark.parametrize(
    'text, why',
    [
        ('', 'not a JSON object: Expecting value, column 1'),
        ('[]', 'a JSON object is expected, got list of 0'),
        ('{"made": ', 'not a JSON object: Expecting value, column'),
        ('<html>', 'is a web page, not the file itself'),
        ('version https://git-lfs.github.com/spec/v1\n', 'is a git-lfs pointer, not the file itself'),
    ],
)
@pytest.mark.parametrize('study', ['report', 'refinement-report'])
def test_what_is_no_json_is_told(study, text, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('results.json').write_text(text)
    assert f'results.json: {why}' in told(study, 'results.json', capsys)


def test_summaries_of_something_else_are_told_by_their_own_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = told('refinement-report', REFINEMENT, capsys, training=[str(SUMMARY), str(MODEL)])
    assert f'{MODEL} is not what st2v train writes: stage, command, ' in line
    Path('odd.json').write_text(json.dumps(json.loads(SUMMARY.read_text()) | {'last': 3}))
    line = told('refinement-report', REFINEMENT, capsys, training=['odd.json'])
    assert "odd.json is not what st2v train writes ('int' object has no attribute 'items')" in line


def videos(path):
    pictures.keep(path, np.zeros((1, 2, 8, 8, 3), np.uint8), np.array([0]), 0)


def a_checker(path):
    checker.save(path, {'clip': {'bias': np.zeros(2)}, 'heads': {'colour': {'bias': np.zeros(2)}}}, {'size': 8})


def damaged_pictures(path):
    videos(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {'jpeg': np.zeros_like(arrays['jpeg'])})


OTHERS = {
    'empty': lambda path: path.write_bytes(b''),
    'text': lambda path: path.write_text('version https://git-lfs.github.com/spec/v1\n'),
    'an array': lambda path: (np.save(path.with_suffix('.npy'), np.zeros(3)), path.with_suffix('.npy').rename(path)),
    'other arrays': lambda path: np.savez(path, a=np.zeros(3)),
    'objects': lambda path: np.savez(path, about=np.array([{}], object), lengths=np.array([{}], object)),
    'cut': lambda path: (np.savez(path, about='{}'), path.write_bytes(path.read_bytes()[:-30])),
    'no json': lambda path: np.savez(path, about='{'),
    'not of a checker': lambda path: np.savez(path, about='{"size": 3}', other=np.zeros(2)),
}


@pytest.mark.parametrize('case', [*OTHERS, 'videos'])
def test_another_file_is_no_checker(case, tmp_path):
    path = tmp_path / 'c.npz'
    (OTHERS | {'videos': videos})[case](path)
    with pytest.raises(BadInput, match=r'c.npz is not what st2v evaluate train-checker writes(: | \()') as error:
        checker.load(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('case', [*OTHERS, 'a checker', 'damaged pictures'])
def test_another_file_holds_no_videos(case, tmp_path):
    path = tmp_path / 'v.npz'
    (OTHERS | {'a checker': a_checker, 'damaged pictures': damaged_pictures})[case](path)
    with pytest.raises(BadInput, match=r'v.npz is not what st2v evaluate generate writes(: | \()') as error:
        pictures.kept(path)
    assert '\n' not in str(error.value)


def test_what_was_stored_is_read(tmp_path):
    videos(tmp_path / 'v.npz')
    a_checker(tmp_path / 'c.npz')
    assert pictures.kept(tmp_path / 'v.npz')[0].shape == (1, 2, 8, 8, 3)
    assert checker.load(tmp_path / 'c.npz')[1] == {'size': 8}
    with pytest.raises(FileNotFoundError):
        checker.load(tmp_path / 'missing.npz')
