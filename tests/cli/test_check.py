"""`st2v convert --check` end to end: what it prints, the report that it writes, and its exit codes."""

import json
import math
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from st2v_jax.cli import check as cli
from st2v_jax.cli.run import main
from st2v_jax.evaluation import first_contact
from st2v_jax.planning import device
from st2v_jax.stopping import Stopped

pytestmark = pytest.mark.usefixtures('unoptimised')
RIGHT = 'everything that a streaming model needs is there, fits and is finite'


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """run('--report', ...) -> (exit code, stdout, stderr) of the check, in a folder with a copy of the right files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['st2v'])

    def run(*arguments):
        capsys.readouterr()
        code = main(['convert', '--check', *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def files(exported, tmp_path):
    """The right files, to be spoilt."""
    shutil.copytree(exported, tmp_path / 'files')
    return tmp_path / 'files'


def spoil(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def unwrapped(out):
    return ' '.join(out.split())


def last_error(err):
    line = err.splitlines()[-1]
    assert line.startswith('error: ')
    return line.removeprefix('error: ')


@pytest.mark.slow
def test_right_files_are_0_and_one_report(run, exported, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in exported.rglob('*')}
    code, out, err = run(exported, '--report', 'report.json')
    assert code == 0, err
    assert out.endswith(f'saved report.json\n{RIGHT}\n') and 'error' not in err
    assert all(len(line) <= cli.WIDTH for line in out.splitlines())
    for name in ('vae', 'text', 'image', 'unet', 'cam', 'apm', 'refiner'):
        assert re.search(rf'^{name} +\d +[\d.]+ M +F16 +0 +0 +0 +0$', out, re.M)
        assert re.search(rf'^{name} +\d +[-\d.e]+ +[\d.e-]+ +-[\d.]+ +[\d.]+ +[\d.]+ % +0 +0 +0$', out, re.M)
    assert re.search(r'One guided step takes [\d.]+ GiB in float32 \(parameters [\d.]+, step [\d.]+\) and then', out)
    assert re.search(r'^first chunk +finite +finite +[\d.e-]+ +[\d.e-]+$', out, re.M)
    assert re.search(r'^later chunk +finite +finite +[\d.e-]+ +[\d.e-]+$', out, re.M)
    report = json.loads(Path('report.json').read_text())
    assert report['problems'] == {} and report['versions'].keys() >= {'python', 'jax', 'jaxlib', 'flax', 'st2v_jax'}
    assert {file['kinds'][0] for file in report['files']} >= {'streaming model', 'Refiner'}
    assert all(network['statistics']['nan'] == 0 for network in report['networks'])
    assert 0 < report['step']['chunks']['later chunk']['apart']['prediction'] < 1
    assert report['step']['needs']['float32']['resident'] > report['step']['needs']['bfloat16']['resident'] > 0
    assert str(tmp_path) not in json.dumps(report) and str(exported.parent) not in json.dumps(report)
    assert [file.name for file in tmp_path.iterdir()] == ['report.json'], 'nothing else is written'
    assert {file: file.stat().st_mtime_ns for file in exported.rglob('*')} == before


def test_the_page_says_what_the_json_says(run, exported):
    assert run(exported, '--report', 'report.md', '--no-run', '--quiet') == (0, '', '')
    assert run(exported, '--report', 'report.json', '--no-run', '--quiet') == (0, '', '')
    page, report = Path('report.md').read_text(), json.loads(Path('report.json').read_text())
    assert page.startswith(f'# Check of published weights\n\nexported, read on {report["date"]} by')
    assert 'Problems: none.' in page and 'It was not computed: --no-run.' in page
    for file in report['files']:
        (part,) = file['parts']
        assert all(text in page for text in (part['name'], f'{part["bytes"]:,} bytes', part['sha256'], *file['kinds']))
    rows = re.findall(r'^\| (\w+)(?:, unused)? \| (\d) \| ([\d.]+) M \|', page, re.M)
    assert rows == [(n['name'], str(n['file']), f'{n["parameters"] / 1e6:.2f}') for n in report['networks']]
    assert ', '.join(f'{name} {version}' for name, version in report['versions'].items()) in page
    assert report['step'] == {'skipped': '--no-run'}


def test_what_is_wrong_is_2_and_one_line_after_the_whole_report(run, files):
    lost, kernel = 'base_model.conv_out.bias', 'vae.decoder.conv_out.weight'

    def change(tensors):
        del tensors[lost]
        tensors['vae.decoder.\x1b[2Jextra'] = np.zeros(1, np.float16)
        tensors[kernel] = tensors[kernel][:2]
        tensors['resampler.context_embedding.0.bias'][1] = math.nan

    spoil(files / 'streaming_t2v.safetensors', change)
    for name in ('unet', 'vae', 'text_encoder'):
        shutil.rmtree(files / name)
    code, out, err = run(files, '--report', 'report.json')
    assert code == 2
    assert last_error(err) == (
        '4 problems: 1 tensor missing, 1 tensor unknown, 1 tensor of a wrong shape, 1 tensor not finite'
    )
    assert f'unet of file 2: 1 tensor missing\n   {lost}\n' in out
    assert 'vae of file 2: 1 tensor unknown\n   vae.decoder.?[2Jextra: 0 rows' in out and '\x1b' not in out
    assert f'vae of file 2: 1 tensor of a wrong shape\n   {kernel}: vae/decoder/to_image/kernel is' in out
    assert 'apm of file 2: 1 tensor not finite\n   resampler.context_embedding.0.bias: 1 NaN\n' in out
    assert 'It was not computed: it takes all networks' in unwrapped(out) and 'jaxlib' in out and RIGHT not in out
    report = json.loads(Path('report.json').read_text())
    assert list(report['problems'].values()) == [1, 1, 1, 1]


def test_a_long_list_is_cut_on_the_screen_only(run, files):
    extra = {f'vae.decoder.extra.{n}': np.zeros(1, np.float16) for n in range(30)}
    spoil(files / 'streaming_t2v.safetensors', lambda tensors: tensors.update(extra))
    code, out, err = run(files, '--report', 'report.md')
    assert code == 2 and last_error(err) == '30 problems: 30 tensors unknown'
    assert out.count('vae.decoder.extra') == cli.SHOWN and f'... and {30 - cli.SHOWN} more: --report has all' in out
    assert Path('report.md').read_text().count('vae.decoder.extra') == 30


@pytest.mark.slow
def test_numbers_that_are_not_finite_show_in_the_step(run, files):
    spoil(files / 'streaming_t2v.safetensors', lambda tensors: tensors['unet.conv_in.bias'].fill(math.inf))
    code, out, err = run(files, '--report', 'report.json')
    assert code == 2
    assert last_error(err) == '3 problems: 1 tensor not finite, 2 steps not finite'
    assert re.search(r'^first chunk +finite +finite ', out, re.M), 'which CAM has no part in'
    assert re.search(r'^later chunk +NOT FINITE +NOT FINITE +- +-$', out, re.M)
    step = json.loads(Path('report.json').read_text())['step']['chunks']['later chunk']
    assert step == {
        'finite': {'float32': False, 'bfloat16': False},
        'apart': {'prediction': None, 'latents': None},
    }


def test_numbers_too_large_for_float16_are_no_problem_but_told(run, files):
    def change(tensors):
        name = 'image_encoder.model.visual.class_embedding'
        tensors[name] = tensors[name].astype(np.float32)
        tensors[name][0] = 1e6

    spoil(files / 'streaming_t2v.safetensors', change)
    code, out, _ = run(files, '--no-run')
    assert code == 0 and out.endswith(f'{RIGHT}\n')
    told = 'image of file 2: 1 tensor too large for float16 (convert with --dtype bfloat16 or float32) image_encoder.'
    assert told in unwrapped(out) and re.search(r'^image .* M (F32 F16|F16 F32) +0 +0 +0 +0$', out, re.M)


def test_half_of_a_model_lacks_the_other(run, exported):
    code, out, err = run(exported / 'vae', exported / 'unet')
    assert code == 2 and last_error(err) == '4 problems: 4 networks missing'
    assert 'needed by a streaming model: text, image, cam, apm.' in unwrapped(out)


def test_a_folder_of_two_good_files_and_a_pointer(run, files):
    for name in ('streaming_t2v.safetensors', 'non_ema_0035000.safetensors'):
        (files / name).unlink()
    pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n'
    (files / 'vae' / 'diffusion_pytorch_model.safetensors').write_text(pointer)
    code, out, err = run(files, '--no-run')
    assert code == 2 and last_error(err) == '5 problems: 1 file unusable, 4 networks missing'
    assert 'is a git-lfs pointer, not the file itself' in unwrapped(out)
    assert re.search(r'^unet +2 +[\d.]+ M +F16 +0 +0 +0 +0$', out, re.M)


@pytest.mark.slow
@pytest.mark.parametrize('limit, row', [(1, None), (None, 'finite +finite'), ('bfloat16', 'too large +finite +- +-')])
def test_a_step_that_does_not_fit_the_device_is_left_out(run, exported, monkeypatch, limit, row):
    if limit == 'bfloat16':
        limit = first_contact.needs(first_contact.open_all([exported]))['bfloat16'].total
    monkeypatch.setattr(device, 'device_memory', lambda: limit)
    code, out, _ = run(exported)
    assert code == 0
    if row is None:
        assert 'It was not computed: the device has too little memory.' in out
    else:
        assert re.search(rf'^later chunk +{row}', out, re.M)


@pytest.mark.parametrize('error', [MemoryError(), RuntimeError('RESOURCE_EXHAUSTED: 91 bytes')])
def test_a_step_that_runs_out_of_memory_leaves_the_report(run, exported, monkeypatch, error):
    def one_step(opened, dtype):
        assert 'the program ended before it was done' in Path('report.md').read_text()
        raise error

    monkeypatch.setattr(first_contact, 'one_step', one_step)
    code, out, _ = run(exported, '--report', 'report.md')
    assert code == 0 and 'It was not computed: the device ran out of memory.' in out
    assert 'the device ran out of memory' in Path('report.md').read_text()


def test_stopped_in_the_step_it_leaves_the_report(run, exported, monkeypatch):
    def one_step(opened, dtype):
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(first_contact, 'one_step', one_step)
    code, _, err = run(exported, '--report', 'report.md')
    assert code == 130
    again = f'st2v convert --check {exported} --report report.md'
    assert err.endswith(f'stopped: report.md has the report without the step; again: {again}\n')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['missing'], 'there is no file or folder missing'),
        (['.', '--report', 'a.txt'], 'a report is a file .md or .json, not a.txt'),
        (['.', '--report', 'none/a.md'], 'cannot write none/a.md: none: No such file or directory'),
        (['.', '--report', 'folder.md'], 'cannot write folder.md: it is a folder'),
    ],
)
def test_mistakes_are_one_line_before_anything_is_read(run, arguments, message, tmp_path):
    (tmp_path / 'folder.md').mkdir()
    code, out, err = run(*arguments)
    assert (code, out) == (2, '') and last_error(err) == message
