"""Commands that the pages show are commands that exist: their options are taken. What they make is tested beside."""

import re
import shlex
from pathlib import Path

import pytest

from st2v_jax.cli import convert, enhance, evaluate, prepare_data, sample, train

ROOT = Path(__file__).parents[2]


def trained(argv):
    """Of a training command the config is loaded too, and its overrides."""
    arguments = train._parse(argv)
    train.load_config(ROOT / arguments.config, arguments.overrides)


PARSERS = {
    'convert.py': lambda argv: convert._parser().parse_args(argv),
    'enhance.py': lambda argv: enhance._parser().parse_args(argv),
    'evaluate.py': evaluate._parse,
    'prepare_data.py': lambda argv: prepare_data._parser().parse_args(argv),
    'sample.py': lambda argv: sample._parser().parse_args(argv),
    'train.py': trained,
}
PAGES = (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'))
SCRIPTS = '|'.join(map(re.escape, PARSERS))
COMMANDS = [
    shlex.split(command, comments=True)
    for page in PAGES
    for command in re.findall(rf'^(?:.*&& | +)?python ((?:{SCRIPTS}) .*)', page.read_text('utf-8'), re.M)
]


@pytest.mark.parametrize('command', COMMANDS, ids=shlex.join)
def test_documented_commands_are_taken(command):
    script, *arguments = command
    if '--help' not in arguments:
        PARSERS[script](arguments)


def test_the_pages_show_commands():
    assert {script for script, *_ in COMMANDS} == set(PARSERS)
