"""`sample.py` end to end with a tiny random model: outputs, messages and errors."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny import WORDS

from st2v_jax import video_io
from st2v_jax.cli import sample, schedules
from st2v_jax.cli.run import main
from st2v_jax.cli.videos import check_words
from st2v_jax.errors import BadInput
from st2v_jax.stopping import Stopped
from st2v_jax.storage.lock import locked
from st2v_jax.streaming.prompt_schedule import PromptSchedule
from st2v_jax.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures('unoptimised')
SCRIPT = Path(__file__).parents[2] / 'sample.py'
PROMPT = 'a red ball moves left'


@pytest.fixture
def run(tiny_folder, capsys, monkeypatch, tmp_path):
    """run('--prompt', ...) -> (exit code, stdout, stderr) of the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['sample.py'])
    monkeypatch.setattr(sys, 'orig_argv', ['python', 'sample.py'])

    def run(*arguments, weights=tiny_folder):
        capsys.readouterr()
        try:
            code = main(['sample', *arguments, '--weights', str(weights), '--steps', '2'])
        except SystemExit as leave:
            code = leave.code
        return code, *capsys.readouterr()

    return run


def command(*arguments, weights, **environment):
    """The command in another process, with the compilation cache of ST2V_CACHE."""
    arguments = [sys.executable, SCRIPT, *arguments, '--weights', weights, '--steps', '2']
    return subprocess.Popen(
        list(map(str, arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_a_prompt_becomes_a_video(run, tmp_path):
    code, out, err = run('--prompt', PROMPT, '--num-frames', '20', '--seed', '3', '--output', 'ball.mp4')
    assert code == 0, err
    first, *_, last = out.splitlines()
    assert first.startswith('device: CPU')
    assert last.startswith('saved ball.mp4 (20 frames, 2.5 s); again: python sample.py --prompt=')
    assert 'warning' not in err
    assert re.search(r'100%.* chunk 2/2 step 2/2.* frames/s \[\d\d:\d\d<', err), (
        'the bar: chunk, step, speed, time left'
    )
    assert video_io.read_video('ball.mp4').shape == (20, 32, 32, 3)

    about = video_io.read_metadata('ball.mp4')
    assert (about['prompt'], about['seed'], about['num_frames']) == (PROMPT, 3, 20)
    assert about['settings']['steps'] == 2 and about['settings']['guidance_text'] == 2.0
    assert about['command'] in last

    program, script, *again = shlex.split(about['command'])
    assert (program, script) == ('python', 'sample.py')
    shutil.move('ball.mp4', 'first.mp4')
    assert main(['sample', *again]) == 0
    assert Path('ball.mp4').read_bytes() == Path('first.mp4').read_bytes(), 'the command makes the same video again'


def test_enhanced_videos_are_larger_and_leave_no_draft(run, tmp_path):
    code, out, err = run('--prompt', PROMPT, '--num-frames', '7', '--enhance', '--output', 'ball.mp4')
    assert code == 0, err
    assert 'chunk 1/1 step 2/2' in err and 'enhancing step 2/2' in err
    assert video_io.read_video('ball.mp4').shape == (7, 48, 48, 3)
    about = video_io.read_metadata('ball.mp4')
    assert about['settings']['steps'] == 2 and about['refinement']['length'] == 6
    assert '--enhance' in about['command'] and about['command'] in out
    assert [file.name for file in tmp_path.iterdir()] == ['ball.mp4']


def test_an_enhancement_that_is_stopped_leaves_the_video_before_it(run, monkeypatch, tmp_path):
    def stopped(enhancer, frames, prompt, **_):
        yield from (frame for frame in frames if frame is None)
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr('st2v_jax.streaming.generate.generate', lambda *_, **__: iter([np.zeros((16, 32, 32, 3))]))
    monkeypatch.setattr('st2v_jax.refinement.enhancer.enhance', stopped)
    code, _, err = run('--prompt', PROMPT, '--num-frames', '16', '--enhance', '--output', 'ball.gif')
    assert code == 130
    assert 'stopped: nothing was written, the video before its enhancement is in ball-draft.mp4; again: ' in err
    assert [file.name for file in tmp_path.iterdir()] == ['ball-draft.mp4']
    assert len(video_io.read_video('ball-draft.mp4')) == 16


def test_enhancing_without_a_refiner_is_bad_input(run, tiny_folder, tmp_path_factory, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp('bad') / 'weights')
    (folder / 'refiner.safetensors').unlink()
    code, _, err = run('--prompt', PROMPT, '--enhance', weights=folder)
    assert code == 2 and re.fullmatch('error: the weights in .*: refiner.safetensors: missing\n', err)
    assert not list(tmp_path.iterdir())


def test_the_output_is_named_after_prompt_and_seed(run, tmp_path):
    code, out, _ = run('--prompt', 'A red ball, moves/left!', '--num-frames', '2', '--seed', '7')
    assert code == 0
    assert [file.name for file in tmp_path.iterdir()] == ['a-red-ball-moves-left-7.mp4']
    assert 'a-red-ball-moves-left-7.mp4' in out


@pytest.mark.parametrize('output, first', [('ball.gif', 'ball.gif'), ('frames/', 'frames/frame-0000.png')])
def test_the_ending_chooses_the_format(run, output, first, tmp_path):
    assert run('--prompt', PROMPT, '--num-frames', '3', '--output', output)[0] == 0
    assert video_io.read_metadata(first)['prompt'] == PROMPT
    assert len([file for file in tmp_path.rglob('*') if file.is_file()]) == (3 if output.endswith('/') else 1)


def test_several_prompts_from_a_file(run):
    Path('prompts.txt').write_text(f'# mine\n{PROMPT}\n\n  a blue star over sand\n')
    code, out, _ = run('--prompts-file', 'prompts.txt', '--num-frames', '2', '--output', 'video.mp4')
    assert code == 0
    prompts = [video_io.read_metadata(f'video-00{i}.mp4')['prompt'] for i in range(2)]
    assert prompts == [PROMPT, 'a blue star over sand']
    assert out.count('saved') == 2 and 'prompts-file' not in out


def test_a_prompt_that_changes_is_told_first_stored_and_repeated(run):
    star, sand = 'a blue star', 'sand over "sand"'
    code, out, err = run('--prompt', PROMPT, '--at', '12', star, '--at', '24', sand, '--blend-frames', '8',
                         '--num-frames', '32', '--output', 'ball.mp4')  # fmt: skip
    assert code == 0, err
    assert out.splitlines()[0] == (
        f'prompts: chunk 1 "{PROMPT}"; from chunk 2 (frame 16) "{star}", in full from chunk 3 (frame 24); from chunk 3 '
        f'(frame 24) "{sand}", never in full'
    )
    about = video_io.read_metadata('ball.mp4')
    assert (about['prompt'], about['at'], about['blend_frames']) == (PROMPT, [[12, star], [24, sand]], 8)
    shutil.move('ball.mp4', 'first.mp4')
    assert main(['sample', *shlex.split(about['command'])[2:]]) == 0
    assert Path('ball.mp4').read_bytes() == Path('first.mp4').read_bytes()


def test_lines_of_json_have_prompts_that_change(run, pretended):
    lines = [{'prompt': PROMPT, 'at': [[16, 'a blue star'], [24, 'sand']], 'blend_frames': 3}, {'prompt': 'sand'}]
    Path('videos.jsonl').write_text('\n\n'.join(map(json.dumps, lines)))
    code, out, _ = run('--prompts-file', 'videos.jsonl', '--enhance', '--output', 'v.mp4')
    assert code == 0 and out.startswith(f'prompts: chunk 1 "{PROMPT}"; from chunk 2 (frame 16) "a blue star"')
    changing = PromptSchedule(PROMPT, ((16, 'a blue star'), (24, 'sand')), 3)
    assert pretended == [changing, PromptSchedule('sand')]
    about = video_io.read_metadata('v-000.mp4')
    again = sample.parser('sample').parse_args(shlex.split(about['command'])[2:])
    assert schedules.from_options(again) == changing
    assert 'at' not in video_io.read_metadata('v-001.mp4')


@pytest.mark.parametrize(
    'line, reason',
    [
        ('{"at": [[16, "sand"]]}', 'it is not'),
        ('{"prompt": "sand", "at": [16, "sand"]}', 'it is not'),
        ('{"prompt": "sand", "at": [["16", "sand"]]}', 'it is not'),
        ('{"prompt": "sand", "at": [[true, "sand"]]}', 'it is not'),
        ('{"prompt": "sand", "at": {"16": "sand"}}', 'it is not'),
        ('{"prompt": "sand", "blend_frames": 1.5}', 'it is not'),
        ('{"prompt": "sand", "colour": "red"}', 'it is not'),
        ('{"prompt": "sand", "at": [[0, "sand"]]}', 'the prompt changes at frame 1 or later, not 0'),
        ('sand', 'not a JSON object'),
    ],
)
def test_a_line_of_json_that_is_something_else_is_refused_with_its_number(run, line, reason):
    Path('videos.jsonl').write_text(f'{{"prompt": "sand"}}\n{line}\n')
    code, out, err = run('--prompts-file', 'videos.jsonl')
    assert (code, out) == (2, '') and re.fullmatch(f'error: .*: videos.jsonl, line 2: {reason}.*\n', err), err


def test_the_prompts_of_the_paper_ship_by_name(run, tmp_path):
    prompts = sample.read_prompts('paper')
    assert len(prompts) == len({*prompts}) == 50 and all(prompts)
    assert {'Chemical reaction.', 'A panda playing guitar on Times Square.'} <= {*prompts}
    (tmp_path / 'paper').write_text(PROMPT)
    assert sample.read_prompts('paper') == [PROMPT], 'a file of that name comes first'


def test_equal_prompts_do_not_share_a_default_name(run, tmp_path):
    Path('prompts.txt').write_text(f'{PROMPT}\n{PROMPT}\n')
    assert run('--prompts-file', 'prompts.txt', '--num-frames', '1')[0] == 0
    assert len(list(tmp_path.glob('*.mp4'))) == 2


@pytest.fixture
def pretended(monkeypatch):
    """Videos come at once, without a model's work: [] collects what is enhanced."""
    enhanced = []

    def generate(model, prompt, num_frames, **_):
        yield np.zeros((num_frames, 32, 32, 3))

    def enhance(enhancer, frames, prompt, **_):
        enhanced.append(prompt)
        for some in frames:
            yield np.zeros((len(some), 48, 48, 3))

    monkeypatch.setattr('st2v_jax.streaming.generate.generate', generate)
    monkeypatch.setattr('st2v_jax.refinement.enhancer.enhance', enhance)
    return enhanced


def names():
    return sorted(file.name for file in Path().iterdir())


def test_default_names_never_collide(run, pretended):
    Path('prompts.txt').write_text(f'{"over sand " * 6} 1\n{"over sand " * 6} 2\n{PROMPT}')
    slug = ('over-sand-' * 6)[:-1]
    assert run('--prompt', PROMPT)[0] == 0
    assert run('--prompts-file', 'prompts.txt')[0] == 0
    again = [f'{slug}-0-2.mp4', f'{slug}-0.mp4']
    assert names() == ['a-red-ball-moves-left-0-2.mp4', 'a-red-ball-moves-left-0.mp4', *again, 'prompts.txt']
    assert video_io.read_metadata(f'{slug}-0-2.mp4')['prompt'].endswith('2')


def test_an_output_that_the_user_names_is_replaced(run, pretended):
    for frames in (3, 2):
        assert run('--prompt', PROMPT, '--num-frames', str(frames), '--output', 'a.mp4')[0] == 0
    assert len(video_io.read_video('a.mp4')) == 2 and names() == ['a.mp4']


def test_a_file_with_the_name_of_the_draft_is_not_touched(run, pretended):
    Path('star-draft.mp4').write_text('precious')
    assert run('--prompt', PROMPT, '--enhance', '--num-frames', '2', '--output', 'star.mp4')[0] == 0
    assert pretended == [PromptSchedule(PROMPT)] and names() == ['star-draft.mp4', 'star.mp4']
    assert Path('star-draft.mp4').read_text() == 'precious'


@pytest.mark.parametrize('taken', ['a-000.mp4', 'a-001.mp4'])
def test_an_output_that_another_run_is_writing_is_refused_before_the_work(run, pretended, taken, monkeypatch):
    Path('prompts.txt').write_text(f'{PROMPT}\n{PROMPT}')
    monkeypatch.setattr('st2v_jax.streaming.generate.load', None)
    with locked(taken):
        assert run('--prompts-file', 'prompts.txt', '--output', 'a.mp4') == (
            2,
            '',
            f'error: another run is writing {taken}\n',
        )
        assert names() == [f'.{taken}.st2v-lock', 'prompts.txt']


def test_prompts_are_numbered_in_the_folder_that_is_open(run, pretended, tmp_path):
    Path('prompts.txt').write_text(f'{PROMPT}\n{PROMPT}')
    assert run('--prompts-file', 'prompts.txt', '--output', '.', '--num-frames', '1')[0] == 0
    assert names() == ['000', '001', 'prompts.txt'] and Path('001/frame-0000.png').is_file()


def test_a_small_tmpdir_is_known_before_the_work(run, pretended, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr('tempfile.tempdir', '/small')
    code, _, err = run('--prompt', PROMPT, '--enhance', '--output', 'a.mp4')
    assert (code, names(), pretended) == (1, [], [])
    line = r'error: /small: the enhancement needs .* MB in \$TMPDIR, 0.0 MB are free; nothing was written; again: .*\n'
    assert re.fullmatch(line, err), err


def test_quiet_prints_nothing(run):
    code, out, err = run('--prompt', PROMPT, '--num-frames', '1', '--quiet')
    assert (code, out, err) == (0, '', '')


def test_unseen_words_and_lost_words_are_named(run):
    long = PROMPT + ' over sand' * 40
    code, _, err = run('--prompt', f'{long} zebra', '--num-frames', '1', '--negative-prompt', 'blurry')
    assert code == 0
    warnings = [line for line in err.splitlines() if line.startswith('warning: ')]
    assert len(warnings) == 3
    assert 'does not know zebra' in warnings[0]
    assert 'longer than 77 tokens and was cut; lost: "over sand' in warnings[1] and 'zebra"' in warnings[1]
    assert 'nothing of the negative prompt "blurry" reaches this model' in warnings[2]


@pytest.mark.parametrize('prompt', ['🔴🎈', 'zebra', '\x07'])
def test_a_prompt_of_which_nothing_reaches_the_model_is_refused_before_the_work(run, prompt, tmp_path):
    code, out, err = run('--prompt', prompt)
    assert code == 2 and re.fullmatch('error: nothing of the prompt ".*" reaches this model; .*--list-words.*\n', err)
    assert not list(tmp_path.iterdir())
    Path('prompts.txt').write_text(f'{PROMPT}\n{prompt}\n')
    assert run('--prompts-file', 'prompts.txt')[0] == 2 and len(list(tmp_path.iterdir())) == 1


def test_of_many_prompts_the_first_that_says_nothing_is_named():
    with pytest.raises(BadInput, match=r'nothing of the prompt "Explosion." \(nor of 1 more\) reaches this model; '):
        check_words(Tokenizer.for_words(WORDS), ['a red ball', 'Explosion.', '🎈', 'Explosion.'], '')


def test_a_negative_prompt_of_which_nothing_reaches_the_model_is_a_warning(capsys):
    check_words(Tokenizer.for_words(WORDS), ['a red ball'], '🎈 !')
    assert capsys.readouterr().err == (
        'warning: nothing of the negative prompt "🎈 !" reaches this model; st2v sample --list-words shows the words '
        'that it knows\n'
    )
    check_words(Tokenizer.for_words(WORDS), ['a red ball'], '')
    check_words(Tokenizer(), ['🔴🎈'], '🎈')
    assert capsys.readouterr().err == ''


def test_warnings_about_hundreds_of_words_are_short(capsys):
    many = ' '.join(f'word{chr(97 + n % 26) * (n // 26 + 1)}' for n in range(500))
    check_words(Tokenizer.for_words(WORDS), [f'a red ball {many}'], '')
    check_words(Tokenizer(), [f'a red ball {many}', 'x' * 5000], '')
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith('warning: ') and len(line) <= 210 for line in lines), lines
    assert re.search(r'does not know 500 words, worda, .* \.\.\. .*which will have no effect', lines[0])


def test_prompts_files_of_any_editor_are_read_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in (
        b'\xef\xbb\xbf# mine\r\na red ball\r\n\r\nfalls\r\n',
        '# mine\ra red ball\rfalls'.encode('utf-16'),
    ):
        Path('prompts.txt').write_bytes(data)
        assert sample.read_prompts('prompts.txt') == ['a red ball', 'falls']
    Path('prompts.txt').write_bytes('# mine\nün café'.encode('latin-1'))
    with pytest.raises(BadInput, match='cannot read the prompts: prompts.txt, line 2: byte 0xfc is not UTF-8'):
        sample.read_prompts('prompts.txt')


@pytest.mark.slow
def test_the_plan_comes_before_anything_is_loaded(run, tiny_folder, tmp_path, monkeypatch, tmp_path_factory):
    bare = tmp_path_factory.mktemp('bare') / 'weights'
    shutil.copytree(tiny_folder, bare)
    for file in bare.glob('*.safetensors'):
        file.write_bytes(b'')  # loading would fail
    code, out, err = run('--prompt', PROMPT, '--num-frames', '29', '--enhance', '--plan', weights=bare)
    assert (code, err) == (0, '')
    assert re.search(r'^refining, step +2 ', out, re.M) and re.search(r'^parameters: .*refiner_text 0 M', out, re.M)
    assert re.search(r'^parameters: .*unet 0 M', out, re.M) and re.search(r'^this device, measured now: ', out, re.M)
    assert re.search(r'^later chunk, step +4 ', out, re.M), 'two chunks of two steps'
    assert re.search(r'^29 frames: .* s, plus compiling .* memory at most 0.0\d GiB', out, re.M)
    assert not list(tmp_path.iterdir())

    monkeypatch.setattr('st2v_jax.planning.device.device_memory', lambda: 1)
    code, out, err = run('--prompt', PROMPT, '--plan', weights=bare)
    assert code == 0 and err.startswith('warning: this needs more memory than the device has: ')
    assert 'refin' not in out

    (bare / 'refiner.safetensors').unlink()
    code, _, err = run('--prompt', PROMPT, '--enhance', '--plan', weights=bare)
    assert code == 2 and re.fullmatch('error: the weights in .* lack the refinement stage: refiner: missing\n', err)


def test_list_words(run, tmp_path):
    code, out, _ = run('--list-words')
    assert code == 0
    assert {'ball', 'star', 'sand'} <= set(out.split())
    assert not list(tmp_path.iterdir())


BAD = {
    'no prompt': ([], 'one of the arguments --prompt'),
    'empty prompt': (['--prompt', ' '], 'the prompt is empty'),
    'a change without a frame': (['--prompt', PROMPT, '--at', 'sand', 'sand'], 'the number of a frame and a prompt'),
    'a change without a prompt': (['--prompt', PROMPT, '--at', '16'], 'expected 2 arguments'),
    'a change to nothing': (['--prompt', PROMPT, '--at', '16', ' '], 'the prompt at frame 16 is empty'),
    'a change at the beginning': (['--prompt', PROMPT, '--at', '0', 'sand'], 'at frame 1 or later, not 0'),
    'a change before it': (['--prompt', PROMPT, '--at', '-8', 'sand'], 'at frame 1 or later, not -8'),
    'a change after the end': (['--prompt', PROMPT, '--at', '48', 'sand'], 'cannot change at frame 48: the last of 48'),
    'a change in the last chunk': (['--prompt', PROMPT, '--at', '47', 'sand'], 'no chunk begins at frame 47 or later'),
    'changes without order': (
        ['--prompt', PROMPT, '--at', '24', 'sand', '--at', '16', 'star'],
        'in the order of their frames, not 16 after 24',
    ),
    'a blend without a change': (['--prompt', PROMPT, '--blend-frames', '8'], '--blend-frames goes with --at'),
    'changes of a file': (['--prompts-file', os.devnull, '--at', '16', 'sand'], '--at and --blend-frames go with --p'),
    'an empty file of lines': (['--prompts-file', 'no.jsonl'], 'cannot read the prompts: .*no.jsonl'),
    'no frames': (['--prompt', PROMPT, '--num-frames', '0'], 'at least 1, not .0.'),
    'negative frames': (['--prompt', PROMPT, '--num-frames=-5'], 'at least 1, not .-5.'),
    'half a frame': (['--prompt', PROMPT, '--num-frames', '1.5'], 'a whole number'),
    'unknown option': (['--prompt', PROMPT, '--colour', 'red'], 'unrecognized arguments: --colour red'),
    'shortened option': (['--prompt', PROMPT, '--num', '3'], 'unrecognized arguments: --num 3'),
    'unknown ending': (['--prompt', PROMPT, '--output', 'a.avi'], r'cannot write a\.avi: its ending must be'),
    'no folder': (['--prompt', PROMPT, '--output', 'no/a.mp4'], 'cannot write no/a.mp4: no: No such file'),
    'a gif of 60 a second': (
        ['--prompt', PROMPT, '--output', 'a.gif', '--fps', '60'],
        r'cannot write a\.gif: a gif holds',
    ),
    'too slow': (['--prompt', PROMPT, '--fps', '0.0001'], 'mp4 holds 0.001 to 1000 frames per second; not 0.0001'),
    'no seed': (['--prompt', PROMPT, '--seed=-1'], 'between 0 and 4294967295'),
    'no speed': (['--prompt', PROMPT, '--fps', '0'], 'a number above 0'),
    'not a number': (['--prompt', PROMPT, '--guidance-text', 'nan'], 'a number'),
    'unknown profile': (['--prompt', PROMPT, '--profile', 'draft'], "invalid choice: 'draft'"),
    'no prompts file': (['--prompts-file', 'missing.txt'], 'cannot read the prompts: .*missing.txt'),
    'a folder of prompts': (['--prompts-file', '/'], 'cannot read the prompts: .*'),
    'empty prompts file': (['--prompts-file', os.devnull], 'has no prompts'),
    'eta below 0': (['--prompt', PROMPT, '--eta=-1'], 'a number from 0 to 1'),
    'eta above 1': (['--prompt', PROMPT, '--eta=1.1'], 'a number from 0 to 1'),
    'guidance beyond all use': (['--prompt', PROMPT, '--guidance-text=1e30'], 'a number from -1000 to 1000'),
    'guidance that is no number': (['--prompt', PROMPT, '--guidance-anchor=nan'], 'a number from -1000 to 1000'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_line_and_exit_code_2(run, case, tmp_path):
    arguments, reason = BAD[case]
    code, out, err = run(*arguments)
    assert code == 2
    assert re.fullmatch(rf'error: .*{reason}.*\n', err), err
    assert not list(tmp_path.iterdir()), 'nothing half-written'


def test_too_many_steps_are_bad_input(run, tiny_folder, tmp_path, capsys):
    assert main(['sample', '--prompt', PROMPT, '--weights', str(tiny_folder), '--steps', '1000']) == 2
    assert re.fullmatch(r'error: .*not 1000\n', capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def misfit(folder):
    (folder / 'vae.safetensors').unlink()
    shutil.copy(folder / 'unet.safetensors', folder / 'cam.safetensors')


def unknown_key(folder):
    settings = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(settings | {'colour': 'red'}))


@pytest.mark.parametrize(
    'damage, reason',
    [
        (shutil.rmtree, 'there is no folder of weights .*'),
        (misfit, r'the weights in .* do not fit its config.json: vae.safetensors: missing \(and \d+ more\)'),
        (unknown_key, '.*config.json: .*unknown key colour.*'),
        (lambda folder: (folder / 'words.json').write_text('{}'), '.*words.json.*'),
    ],
    ids=['missing', 'misfit', 'unknown key', 'words'],
)
def test_weights_that_do_not_fit_are_bad_input(run, tiny_folder, damage, reason, tmp_path_factory, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp('bad') / 'weights')
    damage(folder)
    code, _, err = run('--prompt', PROMPT, weights=folder)
    assert code == 2
    assert re.fullmatch(rf'error: {reason}\n', err), err
    assert not list(tmp_path.iterdir())


def after_first_chunk(error):
    def generate(model, prompt, num_frames, **_):
        yield np.zeros((16, 32, 32, 3))
        raise error

    return generate


def at_once(error):
    def generate(model, prompt, num_frames, **_):
        raise error

    return generate


OUT_OF_MEMORY = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 91 bytes.\nmore')


@pytest.mark.parametrize('error', [OUT_OF_MEMORY, MemoryError()], ids=['device', 'host'])
def test_out_of_memory_says_what_to_lower_and_keeps_an_existing_file(run, error, monkeypatch):
    monkeypatch.setattr('st2v_jax.streaming.generate.generate', at_once(error))
    Path('mine.mp4').write_text('precious')
    code, _, err = run('--prompt', PROMPT, '--output', 'mine.mp4')
    assert code == 1
    assert re.search(r'error: out of device memory; to use less, try --decode-frames 1, or --profile release', err)
    assert 'Traceback' not in err
    assert Path('mine.mp4').read_text() == 'precious'


def test_other_errors_are_not_hidden(run, monkeypatch):
    monkeypatch.setattr('st2v_jax.streaming.generate.generate', at_once(RuntimeError('a bug')))
    code, _, err = run('--prompt', PROMPT)
    assert code == 70 and "RuntimeError('a bug')" in err.splitlines()[-1]


def test_a_full_disk_is_one_line(run, monkeypatch):
    full = OSError(28, 'No space left on device')
    monkeypatch.setattr('st2v_jax.streaming.generate.generate', after_first_chunk(full))
    code, _, err = run('--prompt', PROMPT, '--output', 'a.mp4')
    assert code == 1
    assert 'error: a.mp4: No space left on device; 16 of 48 frames are in a.mp4; again: python sample.py' in err


@pytest.mark.parametrize('output', ['a.mp4', 'a.gif'])
def test_ctrl_c_keeps_the_chunks_that_are_there(run, output, monkeypatch):
    monkeypatch.setattr('st2v_jax.streaming.generate.generate', after_first_chunk(Stopped(signal.SIGINT)))
    code, _, err = run('--prompt', PROMPT, '--output', output, '--num-frames', '48')
    assert code == 130
    assert f'stopped: 16 of 48 frames are in {output}; again: python sample.py' in err
    assert video_io.read_metadata(output)['num_frames'] == 48
    if output.endswith('mp4'):
        assert len(video_io.read_video(output)) == 16


def test_ctrl_c_before_the_first_chunk_writes_nothing(run, monkeypatch, tmp_path):
    monkeypatch.setattr('st2v_jax.streaming.generate.generate', at_once(Stopped(signal.SIGINT)))
    code, _, err = run('--prompt', PROMPT, '--output', 'a.mp4')
    assert code == 130 and 'stopped: nothing was written; again: ' in err
    assert not list(tmp_path.iterdir())


def wait_until_growing(process):
    """Waits until two chunks are written: the bar, which may skip chunks, shows the third or a later one."""
    shown = ''
    while not any(int(number) > 2 for number in re.findall(r'chunk (\d+)/', shown)):
        piece = process.stderr.read(100)
        assert piece, process.stdout.read()
        shown = shown[-100:] + piece  # a piece may end in the middle of a word


@pytest.mark.slow
@pytest.mark.parametrize(
    'sent, code, output',
    [
        (signal.SIGINT, 130, 'long.gif'),
        (signal.SIGTERM, 143, 'long.mp4'),
        (signal.SIGHUP, 129, 'frames/'),
        (signal.SIGKILL, -9, 'long.mp4'),
    ],
)
def test_a_stopped_process_leaves_what_plays(tiny_folder, tmp_path, sent, code, output):
    options = ('--prompt', PROMPT, '--num-frames', 100_000, '--output', f'{tmp_path}/{output}')
    with command(*options, weights=tiny_folder, PYTHONUNBUFFERED='1') as process:
        try:
            wait_until_growing(process)
            if output.endswith('.mp4'):
                assert len(video_io.read_video(tmp_path / output)) >= 23, 'it plays while it grows'
            process.send_signal(sent)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()  # a run without anybody to talk to goes on
    assert process.returncode == code
    assert len(video_io.read_video(tmp_path / output)) >= 23
    first = tmp_path / (f'{output}frame-0000.png' if output == 'frames/' else output)
    assert video_io.read_metadata(first)['prompt'] == PROMPT
    last = (err.splitlines() or [''])[-1]  # a killed process may have printed nothing more
    assert ('stopped: ' in last) == (sent != signal.SIGKILL)
    if sent != signal.SIGKILL:
        assert [path.name for path in tmp_path.iterdir()] == [output.rstrip('/')]


@pytest.mark.slow
def test_compiled_programs_are_kept_for_the_next_run(tiny_folder, tmp_path):
    cache = tmp_path / 'cache'

    def programs(number):
        options = ('--prompt', PROMPT, '--num-frames', 2, '--output', tmp_path / f'{number}.mp4')
        with command(*options, weights=tiny_folder, ST2V_CACHE=str(cache)) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.splitlines()[0].startswith('device: ')
        return {file.name for file in cache.iterdir() if file.name.endswith('-cache')}

    first = programs(1)
    assert any('jit' in name for name in first)
    assert programs(2) == first, 'the second run compiles nothing new'
    assert (tmp_path / '1.mp4').read_bytes()[-2000:] == (tmp_path / '2.mp4').read_bytes()[-2000:]


def test_the_type_that_networks_compute_in_can_be_chosen(run, monkeypatch):
    asked = []

    def load_enhancer(folder, dtype):
        asked.append(dtype)
        raise BadInput('enough')

    monkeypatch.setattr('st2v_jax.streaming.generate.load', lambda folder, dtype, size: asked.append(dtype))
    monkeypatch.setattr('st2v_jax.refinement.enhancer.load_enhancer', load_enhancer)
    for options, own in (((), None), (('--dtype', 'float16'), 'float16'), (('--dtype', 'float32'), 'float32')):
        code, out, err = run('--prompt', PROMPT, '--output', 'ball.mp4', '--enhance', *options)
        assert (code, err, asked.pop(), asked.pop()) == (2, 'error: enough\n', own, own)
        why = f'{own}, as chosen' if own else 'float32, for 16 bits are not faster on a CPU'
        assert out == f'device: CPU with {os.cpu_count()} cores, computing in {why}\n'
