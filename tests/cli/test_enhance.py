"""`st2v enhance` end to end with a tiny random model: inputs, outputs, messages and errors."""

import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from video_io.films import encode

from st2v_jax import video_io
from st2v_jax.cli.run import main
from st2v_jax.errors import BadInput
from st2v_jax.stopping import Stopped
from st2v_jax.storage.lock import locked

pytestmark = pytest.mark.usefixtures('unoptimised')
PROMPT = 'a red ball moves left'
SQUARE = np.full((7, 32, 32, 3), 40, np.uint8)  # two chunks of the tiny model
SQUARE[:, 8:16, 8:16] = (220, 90, 60)


@pytest.fixture
def run(tiny_folder, capsys, monkeypatch, tmp_path):
    """run('--input', ...) -> (exit code, stdout, stderr) of the command in this process, next to `ball.mp4`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['/somewhere/bin/st2v'])
    with video_io.VideoWriter('ball.mp4', 12, (32, 32)) as video:
        video.write(SQUARE)

    def run(*arguments, prompt=PROMPT, weights=tiny_folder):
        capsys.readouterr()
        try:
            code = main(['enhance', *arguments, '--prompt', prompt, '--weights', str(weights)])
        except SystemExit as leave:
            code = leave.code
        return code, *capsys.readouterr()

    return run


def test_a_video_becomes_a_larger_one(run):
    code, out, err = run('--input', 'ball.mp4', '--seed', '3')
    assert code == 0, err
    first, *_, last = out.splitlines()
    assert first.startswith('device: CPU')
    assert last.startswith('saved ball-enhanced.mp4 (7 frames, 0.6 s); again: st2v enhance --input=ball.mp4 ')
    assert 'warning' not in err
    assert re.search(r'100%.* "ball.mp4" enhancing step 2/2.* steps/s \[\d\d:\d\d<', err) and 'writing' in err
    video = video_io.VideoReader('ball-enhanced.mp4')
    assert (video.size, video.fps, sum(map(len, video))) == ((48, 48), 12, 7)

    about = video_io.read_metadata('ball-enhanced.mp4')
    assert (about['prompt'], about['seed'], about['input']) == (PROMPT, 3, 'ball.mp4')
    assert about['settings']['steps'] == 2 and about['settings']['variant'] == 'paper'
    assert about['command'] in last

    program, *again = shlex.split(about['command'])
    assert program == 'st2v'
    shutil.move('ball-enhanced.mp4', 'first.mp4')
    assert main(again) == 0
    assert Path('ball-enhanced.mp4').read_bytes() == Path('first.mp4').read_bytes()


def test_the_same_command_goes_on_in_the_folder_of_resume(run, monkeypatch):
    arguments = ('--input', 'ball.mp4', '--output', 'large.mp4', '--steps', '3', '--resume', 'work')
    looks = iter([False, False, True])  # at the second step

    def check():
        if next(looks, False):
            raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr('st2v_jax.refinement.sdedit.stopping', SimpleNamespace(check=check))
        code, _, err = run(*arguments)
    assert code == 143 and re.search('stopped: nothing was written; again: st2v enhance .*--resume=work', err)
    assert {'enhancement.json', 'journal.safetensors'} <= {file.name for file in Path('work').iterdir()}

    code, _, err = run(*arguments, '--seed', '1')
    assert (code, err) == (2, 'error: work is the enhancement of something else: its seed is 0, not 1\n')
    with monkeypatch.context() as patch:
        patch.setattr('st2v_jax.refinement.enhancer.encode_frames', None)  # frames are not encoded again
        code, _, err = run(*arguments)
    assert code == 0 and 'reading' not in err and '7 frames "ball.mp4" writing' in err and not Path('work').exists()
    resumed = video_io.read_video('large.mp4')
    assert run(*arguments[:-2])[0] == 0
    np.testing.assert_array_equal(video_io.read_video('large.mp4'), resumed)


def test_folders_of_pictures_and_gifs_go_in_and_come_out(run):
    with video_io.VideoWriter('frames/', 8, (32, 32)) as video:
        video.write(SQUARE)
    assert run('--input', 'frames/', '--output', 'ball.gif', '--fps', '8', '--quiet') == (0, '', '')
    assert video_io.read_video('ball.gif').shape == (7, 48, 48, 3)
    code, _, err = run('--input', 'ball.gif', '--output', 'new/', '--fps', '5')
    assert code == 0 and 'warning: ball.gif: resampled from 8 to 5 frames per second\n' in err
    assert len(list(Path('new').glob('frame-*.png'))) == 4, '7 / 8 seconds at 5 per second'
    code, _, err = run('--input', 'new/', '--output', 'new.mp4')
    assert code == 0 and 'warning: new/: no times: 8 frames per second assumed; --fps sets another\n' in err
    assert video_io.VideoReader('new.mp4').fps == 8


def test_unseen_words_are_named(run):
    code, _, err = run('--input', 'ball.mp4', '--negative-prompt', 'blurry', prompt=f'{PROMPT} zebra')
    assert code == 0
    assert re.findall(r'warning: this model does not know (\w+)', err) == ['zebra']
    assert 'warning: nothing of the negative prompt "blurry" reaches this model' in err


def test_the_plan_comes_before_anything_is_loaded(run, monkeypatch):
    monkeypatch.setattr('st2v_jax.refinement.enhancer.load_enhancer', None)
    code, out, err = run('--input', 'ball.mp4', '--steps', '3', '--plan')
    assert (code, err) == (0, '')
    assert re.search(r'^parameters: refiner 0 M, refiner_vae 0 M, refiner_text 0 M', out, re.M)
    assert re.search(r'^refining, encoding +2 ', out, re.M) and re.search(r'^refining, step +3 ', out, re.M)
    assert re.search(r'^7 frames: .* at most ', out, re.M)
    assert re.search(r'^temporary files: 0\.\d MB in .* \(\$TMPDIR\), where .* MB are free$', out, re.M)
    assert not Path('ball-enhanced.mp4').exists()

    monkeypatch.setattr('st2v_jax.planning.device.device_memory', lambda: 1)
    code, _, err = run('--input', 'ball.mp4', '--plan')
    assert code == 0 and err.startswith('warning: this needs more memory than the device has: use a smaller model ')


def write(path, data):
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_bytes(data)


def cut_short():
    with video_io.VideoWriter('cut.mp4', 12, (32, 32)) as video:
        video.write(np.random.default_rng(0).uniform(-1, 1, (7, 32, 32, 3)))
    write('cut.mp4', Path('cut.mp4').read_bytes()[:-3000])


def cut_in_half():
    encode('half.mkv', np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8))
    write('half.mkv', Path('half.mkv').read_bytes()[: Path('half.mkv').stat().st_size // 2])


def quick():
    with video_io.VideoWriter('quick.mp4', 60, (32, 32)) as video:
        video.write(SQUARE)


def frames(folder):
    with video_io.VideoWriter(folder, 8, (32, 32)) as video:
        video.write(SQUARE)


BAD = {
    'half an mkv': (cut_in_half, ['--input', 'half.mkv'], r'cannot read half.mkv: it is damaged after 0.\d of 1.6 sec'),
    'a gif of 60 a second': (quick, ['--input', 'quick.mp4', '--output', 'a.gif'], 'gif holds 0.002 to 50 .* not 60'),
    'a gif at 60': (lambda: None, ['--input', 'ball.mp4', '--output', 'a.gif', '--fps', '60'], 'to 50 .* not 60'),
    'other frames': (
        lambda: write('f/frame-0003.png', b'?'),
        ['--input', 'ball.mp4', '--output', 'f/'],
        'cannot write f/: there are frames that this program did not write, such as f/frame-0003.png',
    ),
    'a series of the input': (
        lambda: frames('f/'),
        ['--input', 'f', '--fps', '8', '--output', 'f/frame.png'],
        'f/frame.png is the input',
    ),
    'missing': (lambda: None, ['--input', 'no.mp4'], 'cannot read no.mp4: there is no such file or folder'),
    'empty': (
        lambda: write('e.mp4', b''),
        ['--input', 'e.mp4'],
        'cannot read e.mp4: it is not a video, or a damaged one',
    ),
    'text': (lambda: write('a.txt', b'hello'), ['--input', 'a.txt'], 'cannot read a.txt: it is not a video'),
    'cut short': (cut_short, ['--input', 'cut.mp4'], r'cannot read cut.mp4: it is damaged after \d+ frames'),
    'no pictures': (lambda: Path('none').mkdir(), ['--input', 'none'], 'cannot read none: there are no frames in it'),
    'no picture': (lambda: write('p/1.png', b'?'), ['--input', 'p'], 'cannot read p/1.png: cannot identify image file'),
    'no input': (lambda: None, [], 'the following arguments are required: --input'),
    'the input': (lambda: None, ['--input', 'ball.mp4', '--output', './ball.mp4'], 'ball.mp4 is the input'),
    'unknown ending': (lambda: None, ['--input', 'ball.mp4', '--output', 'a.avi'], 'cannot write a.avi: its ending'),
    'steps': (lambda: None, ['--input', 'ball.mp4', '--steps', '600'], 'sampled in 1 to 599 steps, not 600'),
    'a change after the end': (lambda: None, ['--input', 'ball.mp4', '--at', '7', 'sand'], 'the last of 7 frames is 6'),
    'a folder of something else': (
        lambda: frames('f/'),
        ['--input', 'ball.mp4', '--resume', 'f'],
        'f is not an enhancement and not empty: an enhancement needs a folder of its own',
    ),
    'devices': (lambda: None, ['--input', 'ball.mp4', '--devices', '9'], 'there are 8 devices to spread chunks over'),
    'plan': (lambda: None, ['--input', 'ball.mp4', '--plan', '--devices', '2'], '--plan works for one device, not 2'),
    'variant': (lambda: None, ['--input', 'ball.mp4', '--variant', 'S'], "variant is one of .*, not 'S'"),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_line_and_exit_code_2(run, case):
    prepare, arguments, reason = BAD[case]
    prepare()
    before = sorted(Path().rglob('*'))
    code, _, err = run(*arguments)
    assert code == 2
    lines = [line for line in err.splitlines() if line and '"cut.mp4" reading' not in line]  # the bar's
    assert len(lines) == 1 and re.fullmatch(rf'error: .*{reason}.*', lines[0]), err
    assert sorted(Path().rglob('*')) == before, 'nothing half-written'


def test_a_folder_of_frames_is_not_written_into_while_it_is_the_input(run):
    with video_io.VideoWriter('frames/', 8, (32, 32)) as video:
        video.write(SQUARE)
    for output in ('frames', './frames/', 'frames/frame.png', 'frames/new-%04d.png'):
        code, _, err = run('--input', 'frames', '--output', output)
        assert (code, err) == (2, f'error: {output} is the input: choose another --output\n')


def test_the_default_name_never_replaces_a_file(run, monkeypatch):
    monkeypatch.setattr('st2v_jax.refinement.enhancer.enhance', lambda *_, **__: (SQUARE for _ in [0]))
    Path('ball-enhanced.mp4').write_text('precious')
    with locked('ball-enhanced-2.mp4'):
        assert run('--input', 'ball.mp4', '--quiet')[0] == 0
    assert Path('ball-enhanced.mp4').read_text() == 'precious'
    assert len(video_io.read_video('ball-enhanced-3.mp4')) == 7 and not Path('ball-enhanced-2.mp4').exists()


def test_the_longest_name_gives_a_name_for_the_output(run, monkeypatch):
    monkeypatch.setattr('st2v_jax.refinement.enhancer.enhance', lambda *_, **__: (SQUARE for _ in [0]))
    os.rename('ball.mp4', '球' * 83 + '.mp4')
    assert run('--input', '球' * 83 + '.mp4', '--quiet')[0] == 0
    assert Path('球' * 80 + '-enhanced.mp4').is_file()


def test_an_empty_prompt_is_refused(run):
    code, _, err = run('--input', 'ball.mp4', prompt=' ')
    assert code == 2 and re.fullmatch('error: the prompt is empty.*\n', err)


def test_weights_without_a_refiner_are_refused(run, tiny_folder, tmp_path_factory):
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp('bad') / 'weights')
    (folder / 'refiner.safetensors').unlink()
    code, _, err = run('--input', 'ball.mp4', weights=folder)
    assert code == 2 and re.fullmatch('error: the weights in .*: refiner.safetensors: missing\n', err)


@pytest.mark.parametrize('done, written', [(0, 'nothing was written'), (4, '4 of 7 frames are in ball-enhanced.mp4')])
def test_ctrl_c_leaves_what_plays_or_nothing(run, done, written, monkeypatch):
    def enhanced(enhancer, frames, prompt, on_step, **_):
        list(frames)
        on_step(2, 2)
        if done:
            yield np.zeros((done, 48, 48, 3))
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr('st2v_jax.refinement.enhancer.enhance', enhanced)
    code, _, err = run('--input', 'ball.mp4')
    assert code == 130 and f'stopped: {written}; again: st2v enhance --input=ball.mp4' in err
    assert (len(video_io.read_video('ball-enhanced.mp4')) if done else 0) == done
    assert done or not Path('ball-enhanced.mp4').exists()


def test_a_disk_that_is_full_when_a_gif_is_written_is_one_line(run, monkeypatch):
    def enhanced(enhancer, frames, prompt, on_step, **_):
        yield np.zeros((sum(map(len, frames)), 48, 48, 3))

    def full(path):
        raise OSError(28, 'No space left on device', '.ball.gif.part')

    monkeypatch.setattr('st2v_jax.refinement.enhancer.enhance', enhanced)
    monkeypatch.setattr('st2v_jax.video_io.writer.replacing', full)
    before = sorted(Path().rglob('*'))
    code, _, err = run('--input', 'ball.mp4', '--output', 'ball.gif', '--quiet')
    line = 'error: ball.gif: No space left on device; nothing was written; again: st2v enhance .*\n'
    assert code == 1 and re.fullmatch(line, err)
    assert sorted(Path().rglob('*')) == before


@pytest.mark.parametrize('prompt', ['🔴🎈', '... !'])
def test_a_prompt_of_which_nothing_reaches_the_model_is_refused_before_the_work(run, prompt, tmp_path):
    code, _, err = run('--input', 'ball.mp4', prompt=prompt)
    assert code == 2 and re.fullmatch('error: nothing of the prompt ".*" reaches this model; .*--list-words.*\n', err)
    assert [file.name for file in tmp_path.iterdir()] == ['ball.mp4']


def test_the_type_that_networks_compute_in_can_be_chosen(run, monkeypatch):
    def load_enhancer(folder, dtype, devices):
        raise BadInput(f'{dtype} on {devices}')

    monkeypatch.setattr('st2v_jax.refinement.enhancer.load_enhancer', load_enhancer)
    code, out, err = run('--input', 'ball.mp4', '--dtype', 'float16')
    assert (code, err) == (2, 'error: float16 on 1\n') and out.endswith('computing in float16, as chosen\n')
