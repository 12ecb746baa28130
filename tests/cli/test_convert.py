"""`st2v convert` end to end: what it makes of published files, says and refuses, and leaves behind when stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hub_server
import numpy as np
import pytest
import torch_files as files
from safetensors.numpy import load_file, save_file

from st2v_jax import trees
from st2v_jax.cli.run import main
from st2v_jax.convert import to_folder
from st2v_jax.open_model import load_weights, open_model
from st2v_jax.stopping import Stopped
from st2v_jax.storage.safetensors import SafeTensors
from st2v_jax.tokenizer import Tokenizer, write_vocabulary

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """run('--from', ...) -> (exit code, stdout, stderr) of the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['st2v'])

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main(['convert', *map(str, arguments)])
        except SystemExit as leave:
            code = leave.code
        return code, *capsys.readouterr()

    return run


def same_networks(one, other):
    names = {file.name for file in one.glob('*.safetensors')}
    assert names == {file.name for file in other.glob('*.safetensors')}
    for name in names:
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        for path in a:
            assert a[path].dtype == b[path].dtype
            np.testing.assert_array_equal(a[path], b[path], f'{name}: {path}')


def test_import_undoes_export_bit_for_bit(run, exported, tiny_folder, tmp_path):
    assert {file.relative_to(exported).as_posix() for file in exported.rglob('*.*')} == {
        'model_index.json',
        'streaming_t2v.safetensors',
        'non_ema_0035000.safetensors',
        'scheduler/scheduler_config.json',
        *(f'{part}/config.json' for part in ('unet', 'vae', 'text_encoder')),
        *(f'{part}/diffusion_pytorch_model.safetensors' for part in ('unet', 'vae')),
        'text_encoder/model.safetensors',
    }
    code, out, err = run('--from', exported, '--to', 'back')
    assert code == 0, err
    assert re.search(r'^cam: [\d.]+ M parameters of .*streaming_t2v.safetensors \(streaming model\)$', out, re.M)
    assert out.endswith('saved back\n') and '100%' in err
    same_networks(tmp_path / 'back', tiny_folder)
    for name in ('config.json', 'words.json'):
        assert json.loads(Path('back', name).read_text()) == json.loads((tiny_folder / name).read_text())


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_the_type_on_disk_can_be_chosen(run, exported, dtype, tmp_path):
    assert run('--from', exported, '--to', 'back', '--dtype', dtype, '--quiet') == (0, '', '')
    stored = SafeTensors(tmp_path / 'back' / 'vae.safetensors')
    assert {str(array.dtype) for array in stored.values()} == {dtype}
    load_weights(tmp_path / 'back')


def test_published_files_are_used_as_they_are(exported, tiny_folder):
    theirs, ours = open_model(exported), open_model(tiny_folder)
    assert theirs.config == ours.config and theirs.held == ours.held
    params, expected = (trees.flatten(model.params(ours.held)) for model in (theirs, ours))
    assert params.keys() == expected.keys()
    for path, array in params.items():
        np.testing.assert_array_equal(array, expected[path], path)
    assert theirs.tokenizer().to_dict() == ours.tokenizer().to_dict()


def test_a_stopped_conversion_goes_on(run, exported, tiny_folder, tmp_path, monkeypatch):
    def interrupted(file, *rest, **options):
        if file.stem == 'apm':
            raise Stopped(signal.SIGINT)
        write(file, *rest, **options)

    write = to_folder.write
    monkeypatch.setattr(to_folder, 'write', interrupted)
    code, _, err = run('--from', exported, '--to', 'new')
    assert code == 130 and err.endswith(
        f'stopped: networks that are complete stay; again: st2v convert --from {exported} --to new\n'
    )
    done = {file.name: file.stat().st_mtime_ns for file in Path('new').iterdir()}
    assert done and 'config.json' not in done and 'unet.safetensors' not in done
    (tmp_path / 'new' / '.unet.safetensors.0123456789abcdef.part').write_bytes(b'killed here')
    (tmp_path / 'new' / '.mine.part').touch()
    (tmp_path / 'new' / 'vae.safetensors').write_bytes(b'not whole')
    done.pop('vae.safetensors', None)

    monkeypatch.setattr(to_folder, 'write', write)
    code, out, _ = run('--from', exported, '--to', 'new')
    assert code == 0 and all(f'{name.split(".")[0]}: is there already' in out for name in done)
    assert {name: Path('new', name).stat().st_mtime_ns for name in done} == done
    same_networks(tmp_path / 'new', tiny_folder)
    assert [file.name for file in Path('new').glob('.*')] == ['.mine.part'], 'only what a conversion left is cleared'


def test_files_of_another_program_are_not_replaced(run, exported, tiny_folder):
    Path('new').mkdir()
    mine = shutil.copy(exported / 'vae' / 'diffusion_pytorch_model.safetensors', 'new/vae.safetensors')
    before = Path(mine).read_bytes()
    refused = 'error: new/vae.safetensors was not written by a conversion: choose another folder\n'
    assert run('--from', exported, '--to', 'new') == (2, '', refused)

    Path('new/model_index.json').write_text('{"_class_name": "TextToVideoSDPipeline"}')
    refused = 'error: new holds another model: choose another folder\n'
    assert run('--from', tiny_folder, '--to-diffusers', 'new') == (2, '', refused)
    assert {file.name for file in Path('new').iterdir()} == {'vae.safetensors', 'model_index.json'}
    assert Path(mine).read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file(run, exported, tmp_path, monkeypatch):
    assert run('--from', exported, '--to', 'new')[0] == 0
    before = {file.name: file.read_bytes() for file in Path('new').iterdir()}

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('st2v_jax.storage.atomic.os.replace', full)
    code, _, err = run('--from', exported, '--to', 'new', '--dtype', 'float32')
    assert code == 1 and 'error: new: No space left on device; networks that are complete stay; again: ' in err
    assert {file.name: file.read_bytes() for file in Path('new').iterdir()} == before


def video_ldm(exported, folder):
    """A Video-LDM by itself as diffusers has it, with a tokenizer that pads with 0, and a copy in half precision."""
    for part in ('unet', 'vae', 'text_encoder', 'scheduler'):
        shutil.copytree(exported / part, folder / part)
    write_vocabulary(folder / 'tokenizer', pad=0)
    text, tokens = folder / 'text_encoder' / 'model.safetensors', 'text_model.embeddings.token_embedding.weight'
    tensors = load_file(text)
    save_file(tensors | {tokens: np.resize(tensors[tokens], (Tokenizer().size, tensors[tokens].shape[1]))}, text)
    (folder / 'unet' / 'diffusion_pytorch_model.fp16.safetensors').write_bytes(b'not read beside the other')
    return folder


def test_a_video_ldm_alone_draws_one_chunk(run, exported, tmp_path):
    folder = video_ldm(exported, tmp_path / 'ms')
    assert run('--from', 'ms', '--to', 'new', '--quiet') == (0, '', '')
    assert {file.stem for file in Path('new').glob('*.safetensors')} == {'unet', 'vae', 'text'}
    assert json.loads(Path('new', 'words.json').read_text())['pad'] == 0
    assert open_model(folder).config == open_model(tmp_path / 'new').config
    for place in (folder, tmp_path / 'new'):
        assert load_weights(place)[1].keys() == {'unet', 'vae', 'text'}


def test_beside_a_streaming_model_a_video_ldm_draws_the_first_chunk(run, exported, tiny_folder, tmp_path):
    video_ldm(exported, tmp_path / 'ms')
    file = 'ms/unet/diffusion_pytorch_model.safetensors'
    save_file({name: array + np.float16(1) for name, array in load_file(file).items()}, file)
    assert run('--from', exported, 'ms', '--to', 'together', '--quiet') == (0, '', '')
    assert run('--from', 'ms', '--to', 'later')[0] == 0
    assert run('--from', exported, '--to', 'later')[0] == 0
    for folder in ('together', 'later'):
        unet, initial = (load_file(f'{folder}/{name}.safetensors') for name in ('unet', 'initial'))
        for path, array in load_file(tiny_folder / 'unet.safetensors').items():
            np.testing.assert_array_equal(unet[path], array)
            np.testing.assert_array_equal(initial[path], array + np.float16(1))
    assert open_model('together').config.initial


BAD = {
    'nothing there': (['--from', 'missing', '--to', 'new'], 'there is no file or folder missing'),
    'no source': (['--to', 'new'], 'one of the arguments --from --check is required'),
    'no target': (['--from', 'x'], '--from needs a folder to write: --to or --to-diffusers'),
    'a report of a conversion': (['--from', 'x', '--to', 'new', '--report', 'a.md'], '--report belongs to --check'),
    'no run of a conversion': (['--from', 'x', '--to', 'new', '--no-run'], '--no-run belongs to --check'),
    'a check that writes': (['--check', 'x', '--to', 'new'], '--check writes no weights: leave out --to'),
    'not weights': (['--from', __file__, '--to', 'new'], 'test_convert.py is text, not the file itself'),
    'no weights in it': (['--from', 'empty', '--to', 'new'], 'empty holds none of the files we know'),
    'other weights': (['--from', 'other.safetensors', '--to', 'new'], '.*none of the files we know'),
    'a lost tensor': (['--from', 'lost.safetensors', '--to', 'new'], 'lost.safetensors: .*nothing in the checkpoint'),
    'no size': (['--from', 'sizeless.safetensors', '--to', 'new'], '.*post_quant_conv.weight: missing, so the sizes'),
    'code': (['--from', 'code.ckpt', '--to', 'new'], ".*'os.system' is not among the names that weights need"),
    'the source': (['--from', 'empty', '--to', 'empty'], 'empty is a source: write to another folder'),
    'two to export': (['--from', 'a', 'b', '--to-diffusers', 'new'], 'one folder of weights is exported at a time'),
    'nothing to export': (['--from', 'empty', '--to-diffusers', 'new'], 'empty: there is no config.json of st2v_jax'),
    'too large': (['--from', 'large.safetensors', '--to', 'new'], r'vae/.*a number is too large for float16; --dtype'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_line_and_exit_code_2(run, exported, case, tmp_path):
    Path('empty').mkdir()
    vae = load_file(exported / 'vae' / 'diffusion_pytorch_model.safetensors')
    shutil.copy(exported / 'vae' / 'config.json', 'config.json')
    save_file({'w': np.zeros(3)}, 'other.safetensors')
    without = lambda name: {key: array for key, array in vae.items() if key != name}
    save_file(without('decoder.conv_out.bias'), 'lost.safetensors')
    save_file(without('post_quant_conv.weight'), 'sizeless.safetensors')
    save_file(vae | {'decoder.conv_out.bias': np.float32([1e6, 0, 0])}, 'large.safetensors')
    pickled = files.program(files.call(files.name('os', 'system'), files.plain('x')))
    Path('code.ckpt').write_bytes(files.zipped(pickled, {}))
    arguments, reason = BAD[case]
    code, out, err = run(*arguments, '--quiet')
    assert code == 2 and out == ''
    assert re.fullmatch(rf'error: .*{reason}.*\n', err), err
    left = [] if not Path('new').exists() else list(Path('new').iterdir())
    assert not left, 'nothing half-written'


def test_text_and_unet_have_to_fit_together(run, exported, tmp_path):
    video_ldm(exported, tmp_path / 'ms')
    clip = {name: np.repeat(array, 2, -1) for name, array in load_file('ms/text_encoder/model.safetensors').items()}
    Path('clip').mkdir()
    save_file(clip, 'clip/model.safetensors')
    code, _, err = run('--from', 'ms', 'clip', '--to', 'new')
    assert code == 2 and re.search(r'error: the UNet reads text of width 16, the text tower gives 32\n', err), err


def fetching(folder, environment, *arguments):
    """The command as a program of its own whose hub and cache are these: (exit code, stderr)."""
    environment = os.environ | environment | {'HF_HOME': str(folder / 'cache'), 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-m', 'st2v_jax', 'convert', *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_repository_of_the_hub_is_fetched_and_kept(exported, tiny_folder, tmp_path):
    held = {file.relative_to(exported).as_posix(): file.read_bytes() for file in exported.rglob('*.*')}
    with hub_server.serve('org/model', held | {'unet/model.fp16.bin': b'', 'a.gif': b''}) as (environment, fetched):
        assert fetching(tmp_path, environment, '--from', 'org/model', '--to', 'new')[0] == 0
        same_networks(tmp_path / 'new', tiny_folder)
        assert 'unet/diffusion_pytorch_model.safetensors' in fetched
        assert not {'unet/model.fp16.bin', 'a.gif'} & {*fetched}
        assert fetching(tmp_path, environment, '--check', 'org/model', '--no-run', '--quiet')[0] == 0
        missing = fetching(tmp_path, environment, '--from', 'org/other', '--to', 'other')
    out_of_reach = fetching(tmp_path, environment, '--from', 'org/other', '--to', 'other')
    for (code, err), why in ((missing, 'has no such model'), (out_of_reach, 'cannot be reached')):
        assert code == 2
        words = rf'error: there is no file or folder org/other, and the Hugging Face hub {why} .*\n'
        assert re.fullmatch(words, err), err
    # the hub is gone, what was fetched is not
    assert fetching(tmp_path, environment, '--from', 'org/model', '--to', 'again')[0] == 0
    same_networks(tmp_path / 'again', tiny_folder)
