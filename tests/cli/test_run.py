"""What all verbs share: quick help, one line for a mistake, exit codes, the command as it was called."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from st2v_jax import errors
from st2v_jax.cli import convert, run
from st2v_jax.stopping import Stopped

ROOT = Path(__file__).parents[2]


def program(*words, **environment):
    """Runs Python in another process: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_the_overview_has_a_line_for_each_verb():
    code, out, _ = program('-m', 'st2v_jax', '--help')
    assert code == 0 and all(re.search(rf'^  {verb} +{text}$', out, re.M) for verb, text in run.VERBS.items())
    assert all(re.search(rf'^  {code} +{re.escape(text)}$', out, re.M) for code, text in run.EXIT_CODES.items())


HELP = {
    'sample': ('--prompt', '--negative-prompt', '--list-words', '--num-frames N', 'ST2V_CACHE', 'examples:'),
    'session': ('reroll', 'branch', 'export', 'st2v session extend ball', 'examples:', 'docs/sessions.md'),
    'web': ('--folder', '--auth', 'examples:', 'ST2V_AUTH', 'docs/web.md'),
    'verify': ('--chunks', '--weights', 'examples:', 'st2v verify night.mp4'),
    'enhance': ('--input', '--prompt', '--variant', 'examples:', 'st2v enhance --input', '$TMPDIR'),
    'train': ('--config', '--workdir', '--from', 'st2v train --config cam:small'),
    'convert': ('--check', '--to-diffusers', 'streaming_t2v.ckpt', 'examples:', 'docs/weights.md'),
    'evaluate': ('train-checker', 'refinement-report', 'st2v evaluate generate --weights'),
    'plan': ('--target', '--for', '--parts', 'examples:', 'st2v plan --target v5e:2x4'),
    'prepare-data': ('--videos', '--encode', 'captions.jsonl', 'examples:'),
}


@pytest.mark.parametrize('verb', run.VERBS)
def test_help_teaches(verb, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['st2v'])
    with pytest.raises(SystemExit) as leave:
        run.main([verb, '--help'])
    shown = capsys.readouterr().out
    assert leave.value.code == 0 and shown.startswith(f'usage: st2v {verb} ')
    assert all(words in shown for words in HELP[verb])


VERBS_OF_A_SESSION = ('show', 'extend', 'reroll', 'branch', 'export', 'enhance', 'verify', 'prune')
STUDIES = (
    'videos',
    'protocol',
    'methods',
    'train-checker',
    'generate',
    'measure',
    'report',
    'refine',
    'refinement-report',
)


COMMANDS = [(), *((verb,) for verb in run.VERBS), *(('evaluate', name) for name in STUDIES)]


@pytest.mark.parametrize('command', [*COMMANDS, *(('session', name) for name in VERBS_OF_A_SESSION)])
def test_help_fits_80_columns(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['/site-packages/st2v_jax/__main__.py'])  # the longest name of the program
    monkeypatch.setenv('COLUMNS', '80')
    with pytest.raises(SystemExit):
        run.main([*command, '--help'])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_help_of_sample_shows_prompts_that_the_small_model_understands(capsys):
    from st2v_jax.data.world import EXAMPLES

    with pytest.raises(SystemExit):
        run.main(['sample', '--help'])
    shown = capsys.readouterr().out
    assert all(prompt in shown for prompt in EXAMPLES)


def test_help_does_not_wait_for_jax():
    code = (
        'import sys\nfrom st2v_jax.cli import run\n'
        'for verb in run.VERBS:\n'
        '    try: run.main([verb, "--help"])\n'
        '    except SystemExit: pass\n'
        'print({"jax", "transformers", "av", "torch", "cv2"} & set(sys.modules))'
    )
    assert program('-c', code)[1].endswith('\nset()\n')


@pytest.mark.parametrize(
    'argv, message',
    [
        ([], 'the following arguments are required: VERB'),
        (['paint'], "argument VERB: invalid choice: 'paint' .*'sample', 'enhance'.*"),
        (['sample'], 'one of the arguments --prompt .*'),
    ],
)
def test_a_mistake_is_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as leave:
        run.main(argv)
    assert leave.value.code == 2
    assert re.fullmatch(rf'error: {message} \(see --help\)\n', capsys.readouterr().err)


@pytest.mark.parametrize(
    'called, again',
    [
        ('sample.py', 'python3 sample.py'),
        ('../my clone/sample.py', "python3 '../my clone/sample.py'"),
        ('/usr/bin/st2v', 'st2v sample'),
        ('/site-packages/st2v_jax/__main__.py', 'python3 -m st2v_jax sample'),
    ],
)
def test_the_command_is_as_it_was_called(called, again, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [called])
    monkeypatch.setattr(sys, 'orig_argv', ['/usr/bin/python3', called])
    _, _, one = run.parse(['sample', '--prompt', 'a red ball'])
    assert one.again == f"{again} --prompt 'a red ball'"


FULL = OSError(28, 'No space left on device', 'a/b')
AGAIN = 'st2v convert --from a --to b'
ENDS = {
    'done': (None, 0, ''),
    'bad input': (errors.BadInput('no'), 2, 'error: no'),
    'no video': (errors.InputError('cannot read a'), 2, 'error: cannot read a'),
    'no place': (errors.OutputError('cannot write a'), 2, 'error: cannot write a'),
    'weights': (errors.WeightsError('do not fit:\n  one\n  two\n  three'), 2, 'error: do not fit: one (and 2 more)'),
    'setting': (ValueError('steps is 1'), 2, 'error: steps is 1'),
    'missing file': (FileNotFoundError(2, 'No such file', 'a'), 2, 'error: a: No such file'),
    'not allowed': (PermissionError(13, 'Permission denied', 'a'), 2, 'error: a: Permission denied'),
    'full disk': (FULL, 1, f'error: a/b: No space left on device; nothing was written; again: {AGAIN}'),
    'training': (errors.TrainingError('loss nan'), 1, 'error: loss nan'),
    'memory': (MemoryError(), 1, 'error: out of device memory'),
    'device memory': (
        jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 91 bytes\nmore'),
        1,
        'error: out of device memory; to use less, try --batch, or --frames',
    ),
    'no device': (
        RuntimeError("Unable to initialize backend 'cuda': none"),
        1,
        "error: no device to compute on: Unable to initialize backend 'cuda': none",
    ),
    'Ctrl-C': (Stopped(signal.SIGINT), 130, f'stopped: nothing was written; again: {AGAIN}'),
}


@pytest.mark.parametrize('case', ENDS)
def test_every_end_has_its_code_and_one_line(case, capsys, monkeypatch):
    error, code, line = ENDS[case]

    def work(arguments, run):
        run.lower = ('--batch', '--frames') if case == 'device memory' else ()
        if error is not None:
            raise error

    monkeypatch.setattr(sys, 'argv', ['st2v'])
    monkeypatch.setattr(convert, 'work', work)
    assert run.main(['convert', '--from', 'a', '--to', 'b']) == code
    assert capsys.readouterr().err == line + '\n' * bool(line)


@pytest.mark.parametrize('bug', [RuntimeError('a bug'), KeyError('a'), TypeError('b')])
def test_a_bug_is_not_hidden(bug, monkeypatch, capsys):
    def work(arguments, run):
        raise bug

    monkeypatch.setattr(convert, 'work', work)
    assert run.main(['convert', '--from', 'a', '--to', 'b']) == run.BUG == 70
    traceback, last = capsys.readouterr().err.rstrip('\n').rsplit('\n', 1)
    assert traceback.startswith('Traceback') and 'raise bug' in traceback
    assert last == f'error: this is a bug of st2v_jax, please report it with the lines above: {bug!r}'


@pytest.mark.parametrize('sent, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_answered_even_by_work_that_never_looks(sent, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['st2v'])
    monkeypatch.setattr(convert, 'work', lambda arguments, run: signal.raise_signal(sent))
    assert run.main(['convert', '--from', 'a', '--to', 'b']) == code in run.EXIT_CODES
    assert capsys.readouterr().err == f'stopped: nothing was written; again: {AGAIN}\n'


UNDECODABLE = {  # as Python hands over the bytes that it cannot decode
    'a prompt': (['sample', '--prompt', 'caf\udce9'], r'caf\xe9'),
    'a path': (['sample', '--prompt', 'a ball', '--output', 'b\udcff.mp4'], r'b\xff.mp4'),
    'an input': (['enhance', '--prompt', 'a ball', '--input', '\udcc3'], r'\xc3'),
    'a folder': (['convert', '--from', '\udce9', '--to', 'b'], r'\xe9'),
    'a config': (['train', '--config', 'cam', '--config.stage=\udce9'], r'--config.stage=\xe9'),
    'captions': (['prepare-data', '--videos', 'a', '--captions', '\udce9', '--output', 'b'], r'\xe9'),
    'a study': (['evaluate', 'report', '--results', '\udce9', '--output', 'b'], r'\xe9'),
    'a verb': (['s\udce9mple'], r's\xe9mple'),
}


@pytest.mark.parametrize('case', UNDECODABLE)
def test_bytes_that_are_no_text_are_refused_before_any_work(case, capsys, tmp_path, monkeypatch):
    argv, shown = UNDECODABLE[case]
    monkeypatch.chdir(tmp_path)
    assert run.main(argv) == 2
    assert capsys.readouterr().err == f'error: arguments are text in UTF-8, not "{shown}"\n'
    assert not list(tmp_path.iterdir())


def test_text_that_this_locale_does_not_know_is_named_with_what_helps(tmp_path):
    environment = {'LC_ALL': 'POSIX', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
    code, _, err = program('sample.py', '--prompt', 'un café', '--output', str(tmp_path / 'a.mp4'), **environment)
    assert code == 2 and err.startswith('error: arguments are read as ascii here') and 'PYTHONUTF8=1' in err
    assert r'"un caf\xc3\xa9"' in err and not list(tmp_path.iterdir())


def test_a_repeated_command_reads_back_the_same_values(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['st2v'])
    given = ['--prompt=-a "red" ball=round\n', '--negative-prompt=--quiet', '--guidance-text=-2.5', '--output=-x.mp4']
    _, first, one = run.parse(['sample', *given])
    program, verb, *words = shlex.split(one.parser.again(first))
    assert (program, verb) == ('st2v', 'sample')
    assert run.parse(['sample', *words])[1] == first


def test_a_machine_without_the_device_is_one_line(tmp_path):
    code, _, err = program(
        'sample.py', '--prompt', 'a red ball', '--output', str(tmp_path / 'a.mp4'), JAX_PLATFORMS='tpu'
    )
    assert code == 1 and re.fullmatch('error: no device to compute on: .*\n', err.splitlines(True)[-1]), err


def test_compiled_programs_are_kept_where_asked(tmp_path):
    code = (
        'from st2v_jax.cli import convert, run\n'
        'def work(arguments, run):\n'
        '    import jax\n'
        '    print(jax.config.jax_compilation_cache_dir)\n'
        '    print(jax.config.jax_persistent_cache_min_compile_time_secs)\n'
        'convert.work = work\n'
        'run.main(["convert", "--from", "a", "--to", "b"])'
    )
    folders = {name: str(tmp_path / name) for name in ('ours', 'theirs', 'home')}
    unset = {'JAX_COMPILATION_CACHE_DIR': '', 'XDG_CACHE_HOME': folders['home']}
    said = lambda **environment: program('-c', code, **environment)[1].splitlines()
    assert said(ST2V_CACHE=folders['ours'], JAX_COMPILATION_CACHE_DIR=folders['theirs']) == [folders['ours'], '0.0']
    assert said(JAX_COMPILATION_CACHE_DIR=folders['theirs'])[0] == folders['theirs']
    assert said(**unset) == [f'{folders["home"]}/st2v_jax', '0.0'] and (tmp_path / 'home' / 'st2v_jax').is_dir()
