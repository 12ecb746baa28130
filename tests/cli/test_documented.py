"""All commands on the pages exist and accept their options. What they do is tested elsewhere."""

import re
import shlex
from pathlib import Path

import pytest

from st2v_jax.cli import run
from st2v_jax.training.config_files import load_config

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'), *(ROOT / 'configs').glob('*.py'))
# Records of commands that were run before `st2v` existed are not changed.
RECORDED = {'evaluate.py': 'evaluate'}
SCRIPTS = {f'{verb}.py': verb for verb in ('sample', 'train')}
PROGRAMS = {f'python {script}': verb for script, verb in (SCRIPTS | RECORDED).items()} | {
    f'{program} {verb}': verb for program in ('st2v', 'python -m st2v_jax') for verb in run.VERBS
}


def commands(text):
    """[verb, *arguments] of each line of a page that is a command; a line that ends in \\ goes on in the next."""
    programs = '|'.join(map(re.escape, PROGRAMS))
    found = re.findall(rf'^(?:.*&& | +)?({programs}) (.*)', text.replace('\\\n', ' '), re.M)
    return [[PROGRAMS[program], *shlex.split(arguments, comments=True)] for program, arguments in found]


COMMANDS = [command for page in PAGES for command in commands(page.read_text('utf-8'))]


@pytest.mark.parametrize('command', COMMANDS, ids=shlex.join)
def test_documented_commands_are_taken(command, monkeypatch):
    if '--help' in command:
        return
    monkeypatch.chdir(ROOT)
    verb, arguments, _ = run.parse(command)
    if command[0] in ('train', 'plan'):  # the config is loaded too, and its overrides
        load_config(arguments.config, arguments.overrides)


def test_the_pages_show_commands():
    assert {verb for verb, *_ in COMMANDS} == set(run.VERBS)


@pytest.mark.parametrize('verb', run.VERBS)
def test_examples_of_help_are_taken(verb, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr('sys.argv', ['st2v'])
    with pytest.raises(SystemExit):
        run.main([verb, '--help'])
    examples = commands(capsys.readouterr().out.replace('\\\n', ' '))
    assert examples
    for command in examples:
        _, arguments, _ = run.parse(command)
        if verb in ('train', 'plan'):
            load_config(arguments.config, arguments.overrides)


def test_every_command_on_a_page_is_looked_at():
    """No page names a program that does not exist, such as a deleted script."""
    named = {name for page in PAGES for name in re.findall(r'python (?:\S+/)?(\w+\.py)', page.read_text('utf-8'))}
    scripts = {path.name for folder in (ROOT, ROOT / 'benchmarks') for path in folder.glob('*.py')}
    assert named <= scripts | set(RECORDED)
