"""A path without a model says which one was meant, if there is one; every verb that reads weights shows it."""

import re
import shutil
import sys

import pytest

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


@pytest.mark.parametrize(
    'verb',
    [
        ('sample', '--prompt', 'a red ball', '--weights'),
        ('sample', '--list-words', '--weights'),
        ('enhance', '--prompt', 'a red ball', '--input', 'in.gif', '--weights'),
        ('convert', '--to', 'new', '--from'),
        ('convert', '--to-diffusers', 'new', '--from'),
        ('train', '--config', 'cam:tiny', '--workdir', 'new', '--from'),
    ],
    ids=lambda verb: ' '.join(verb[:2]),
)
def test_every_verb_says_so_in_one_line(verb, run, monkeypatch, capsys):
    from PIL import Image

    Image.new('RGB', (32, 32)).save('in.gif')
    monkeypatch.setattr(sys, 'argv', ['st2v'])
    assert main([*verb, 'runs/cam']) == 2
    line = capsys.readouterr().err
    assert re.fullmatch(r'error: .*runs/cam\b.*: the model is runs/cam/weights\n', line), line


def test_a_check_says_so_without_the_folders_around(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['st2v'])
    assert main(['convert', '--check', str(run), '--no-run']) == 2
    out = ' '.join(capsys.readouterr().out.split())
    assert 'cam holds none of the files we know: the model is cam/weights' in out and str(run.parent) not in out
