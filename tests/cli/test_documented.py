"""Commands that the pages show are commands that exist: their options are taken. What they make is tested beside."""

import re
import shlex
from pathlib import Path

import pytest

from st2v_jax.cli import enhance, prepare_data, sample

ROOT = Path(__file__).parents[2]
PARSERS = {'sample.py': sample._parser, 'enhance.py': enhance._parser, 'prepare_data.py': prepare_data._parser}
PAGES = (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'))
SCRIPTS = '|'.join(map(re.escape, PARSERS))
COMMANDS = [
    shlex.split(command, comments=True)
    for page in PAGES
    for command in re.findall(rf'^(?:.*&& )?python ((?:{SCRIPTS}) --.*)', page.read_text('utf-8'), re.M)
]


@pytest.mark.parametrize('command', COMMANDS, ids=shlex.join)
def test_documented_commands_are_taken(command):
    script, *arguments = command
    if '--help' not in arguments:
        PARSERS[script]().parse_args(arguments)


def test_the_pages_show_commands():
    assert {script for script, *_ in COMMANDS} == set(PARSERS)
