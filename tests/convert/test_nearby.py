"""A path without a model says which one was meant, if there is one; every verb that reads weights shows it."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from st2v_jax.cli.run import main
from st2v_jax.convert.nearby import hint
from st2v_jax.errors import WeightsError
from st2v_jax.open_model import open_model


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch):
    """A folder with the training run cam: runs/cam/weights and what lies beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'runs/cam/checkpoints/12').mkdir(parents=True)
    shutil.copytree(tiny_folder, 'runs/cam/weights')
    return tmp_path / 'runs/cam'


WRONG = ['runs/cam', 'runs/cam/', './runs/cam', 'runs', 'runs/cam/checkpoints', 'runs/cam/weight', 'runs/cam/wieghts/']


@pytest.mark.parametrize('source', [*WRONG, 'runs/cam/weights/vae.safetensors'])
def test_the_folder_of_weights_is_named(source, run):
    assert hint(source) == ': the model is runs/cam/weights'
    with pytest.raises(WeightsError, match=r': the model is runs/cam/weights$'):
        open_model(source)


def test_of_two_models_none_is_named(run, tiny_folder):
    shutil.copytree(tiny_folder, 'runs/apm/weights')
    assert hint('runs') == '' and hint('runs/cam') == ': the model is runs/cam/weights'


def test_a_run_without_weights_and_a_half_download_are_named(tmp_path):
    (tmp_path / 'cam' / 'checkpoints').mkdir(parents=True)
    assert hint(tmp_path / 'cam') == ': it is a training run that has not written its weights yet'
    (tmp_path / 'ms').mkdir()
    assert hint(tmp_path / 'ms') == ''
    for name in ('model.safetensors.incomplete', 'b.ckpt.part', 'c.bin.crdownload'):
        (tmp_path / 'ms' / name).write_bytes(b'')
    assert hint(tmp_path / 'ms') == ': b.ckpt.part is a download that has not finished'


def test_a_part_of_a_diffusers_folder_names_the_whole(exported):
    for part in ('unet', 'vae'):
        with pytest.raises(WeightsError, match=rf'{part} lacks .*: the model is {re.escape(str(exported))}$'):
            open_model(exported / part).params()
    assert open_model(exported / 'vae').params(['vae']), 'what is there can be read'


def test_a_folder_that_only_looks_like_a_model_is_not_named(tmp_path):
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'config.json').write_text('{"a": 1}')
    assert hint(tmp_path) == ''
    (tmp_path / 'other' / 'config.json').write_text('<html>')
    assert hint(tmp_path) == ''


READERS = [
    ('sample', '--prompt', 'a red ball', '--weights'),
    ('sample', '--list-words', '--weights'),
    ('sample', '--prompt', 'a red ball', '--plan', '--weights'),
    ('enhance', '--prompt', 'a red ball', '--input', 'in.gif', '--weights'),
    ('convert', '--to', 'new', '--from'),
    ('train', '--config', 'cam:tiny', '--workdir', 'new', '--from'),
    ('evaluate', 'train-checker', '--checker', 'c.npz', '--weights'),
    ('evaluate', 'refine', '--out', 'new', '--weights'),
    ('prepare-data', '--videos', 'videos', '--output', 'new', '--encode'),
]
TO_DIFFUSERS = ('convert', '--to-diffusers', 'new', '--from')


@pytest.fixture
def said(run, monkeypatch, capsys):
    """said(verb, source) -> the one line of the error; nothing is written."""
    monkeypatch.setattr(sys, 'argv', ['st2v'])
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)  # everything is installed
    Image.new('RGB', (32, 32)).save('in.gif')
    Path('videos').mkdir()
    Path('videos/captions.jsonl').write_text('{"file": "in.gif", "caption": "a ball"}')

    def said(verb, source):
        assert main([*verb, source]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not Path('new').exists() and not Path('c.npz').exists()
        return line

    return said


@pytest.mark.parametrize('verb', [*READERS, TO_DIFFUSERS], ids=' '.join)
def test_every_verb_names_the_folder_in_one_line(verb, said):
    line = said(verb, 'runs/cam')
    assert re.fullmatch(r'error: .*runs/cam\b.*: the model is runs/cam/weights', line), line


@pytest.mark.parametrize('verb', READERS, ids=' '.join)
def test_every_verb_says_what_lies_in_the_place_of_weights(verb, said):
    for name in ('model.safetensors', 'model.ckpt'):
        Path(name).write_text('version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n')
        assert said(verb, name) == (
            f'error: {name} is a git-lfs pointer, not the file itself: `git lfs pull` fetches that'
        )


@pytest.mark.parametrize('verb', [*READERS[:1], *READERS[3:4]], ids=' '.join)
def test_so_do_folders_of_ours(verb, said):
    for file in Path('runs/cam/weights').glob('*.safetensors'):
        file.write_text('<!DOCTYPE html>')
    line = said(verb, 'runs/cam/weights')
    assert re.fullmatch(r'error: .* do not fit its config.json: \w+.safetensors is a web page, not .*more\)', line), (
        line
    )


def test_a_check_says_so_without_the_folders_around(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['st2v'])
    assert main(['convert', '--check', str(run), '--no-run']) == 2
    out = ' '.join(capsys.readouterr().out.split())
    assert 'cam holds none of the files we know: the model is cam/weights' in out and str(run.parent) not in out
