"""What the options of all verbs share: help that fits the terminal, errors in one line, checked numbers."""

import argparse
import dataclasses
import re
import shlex
import shutil
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from st2v_jax import __version__
from st2v_jax.errors import BadInput

if TYPE_CHECKING:
    from st2v_jax.streaming.gate import Gate

# The types that networks may compute in
DTYPES = ('bfloat16', 'float16', 'float32')


def terminal_width() -> int:
    """Columns of text that are easy to read: those of the terminal, at most 100."""
    return min(shutil.get_terminal_size().columns, 100)


class HelpFormatter(argparse.HelpFormatter):
    """Wraps paragraphs to the terminal. Indented lines stay as they are, unless a command is too long for one line."""

    def __init__(self, prog, **options):
        super().__init__(prog, **{'width': terminal_width() - 2} | options)

    def _fill_text(self, text, width, indent):
        lines, paragraph = [], []
        for line in [*text.splitlines(), '']:
            if line and not line.startswith(' '):
                paragraph.append(line)
                continue
            lines += textwrap.wrap(' '.join(paragraph), width, break_long_words=False, break_on_hyphens=False)
            lines += _broken(line, width)
            paragraph = []
        return '\n'.join(indent + line for line in lines[:-1])


def _broken(line, width):
    """An indented line as lines of at most `width`: a long command is broken before options, below its comment."""
    if len(line) <= width:
        return [line]
    command, _, comment = line.partition('   # ')
    first, *rest = re.split(' (?=--)', command.rstrip())
    lines = [f'  # {comment}'] * bool(comment) + [first]
    for option in rest:
        if len(lines[-1]) + len(option) + len('  \\') > width:
            lines[-1] += ' \\'
            lines.append(f'    {option}')
        else:
            lines[-1] += f' {option}'
    return lines


class Parser(argparse.ArgumentParser):
    """The parser of a command; prog is how the user called it, such as `python sample.py` or `st2v sample`."""

    def __init__(self, prog, description, formatter_class=HelpFormatter, **options):
        super().__init__(
            prog=prog, description=description, formatter_class=formatter_class, allow_abbrev=False, **options
        )
        self.add_argument('--version', action='version', version=f'st2v_jax {__version__}')

    def error(self, message: str) -> NoReturn:
        """Reports a mistake in one line and exits with code 2."""
        self.exit(2, f'error: {message} (see --help)\n')

    def again(self, arguments: argparse.Namespace, **named: Any) -> str:
        """The command that repeats a run: the options that differ from their defaults, and the `named` ones."""
        parts = []
        for name, value in (vars(arguments) | named).items():
            if value is None or name == 'quiet' or (name not in named and value == self.get_default(name)):
                continue
            option = f'--{name.replace("_", "-")}'
            if isinstance(value, list):  # an option that may be repeated, with several words each time
                parts += [f'{option} {shlex.join(map(str, words))}' for words in value]
                continue
            # joined by =, for a value may begin with a dash
            parts.append(option if value is True else f'{option}={shlex.quote(_spelled(value))}')
        return ' '.join([self.prog, *parts])


class ConfigParser(Parser):
    """The parser of a verb that takes a config and changes to it."""

    def parse_args(self, argv: list[str]) -> argparse.Namespace:
        """Also accepts --config.KEY=VALUE for any key and collects these as `overrides`."""
        arguments, rest = self.parse_known_args(argv)
        arguments.overrides = {}
        rest = iter(rest)
        for word in rest:
            found = re.fullmatch(r'--config\.([\w.]+)(?:=(.*))?', word, re.DOTALL)
            if not found:
                self.error(f'unknown option {word}')
            value = found[2] if found[2] is not None else next(rest, None)
            if value is None:
                self.error(f'{word} needs a value')
            arguments.overrides[found[1]] = value
        return arguments


def _spelled(value):
    if isinstance(value, tuple):  # of frame_size
        return 'x'.join(map(str, value))
    return f'{value:.15g}' if isinstance(value, float) else str(value)


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given, as {name: value}, for settings with their own defaults."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


LARGEST = 1 << 14  # pixels of a side


def frame_size(text: str) -> tuple[int, int]:
    """'192x128' -> (192, 128), (height, width); '128' -> (128, 128)."""
    sides = text.lower().split('x')
    if len(sides) > 2 or not all(side.isdecimal() and 0 < int(side) <= LARGEST for side in sides):
        raise argparse.ArgumentTypeError(
            f'must be HEIGHTxWIDTH or one number of pixels, from 1 to {LARGEST}, not {text!r}'
        )
    return int(sides[0]), int(sides[-1])


def _checked(kind, holds, rule):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not holds(value):
            raise argparse.ArgumentTypeError(f'must be {rule}, not {text!r}')
        return value

    return parse


at_least_0 = _checked(int, lambda value: value >= 0, 'a whole number of at least 0')
at_least_1 = _checked(int, lambda value: value >= 1, 'a whole number of at least 1')
seed = _checked(int, lambda value: 0 <= value < 2**32, f'a whole number between 0 and {2**32 - 1}')
port = _checked(int, lambda value: 0 <= value < 2**16, 'a port between 0 and 65535')
rate = _checked(float, lambda value: 0 < value <= 1000, 'a number above 0 and up to 1000')
positive = _checked(float, lambda value: 0 < value < float('inf'), 'a number above 0')
# Far more than makes a picture; numbers beyond any use become NaN in the middle of the work
guidance = _checked(float, lambda value: abs(value) <= 1000, 'a number from -1000 to 1000')
share = _checked(float, lambda value: 0 <= value <= 1, 'a number from 0 to 1')
not_negative = _checked(float, lambda value: 0 <= value < float('inf'), 'a number of at least 0')


def shard(text: str) -> tuple[int, int]:
    """'2/8' -> (2, 8)."""
    number, _, count = text.partition('/')
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f'must be i/n, from 1/n to n/n, not {text!r}')
    return int(number), int(count)


def add_sampling(add: Callable) -> None:
    """Adds the options that decide how a chunk is sampled, with a parser's `add_argument`; see `given`."""
    add('--steps', type=at_least_1, metavar='N', help='denoising steps of each chunk (default: 20)')
    add('--guidance-text', type=guidance, metavar='X', help='guidance scale of the text (default: set by the model)')
    add(
        '--guidance-anchor',
        type=guidance,
        metavar='X',
        help='guidance scale of the first frame (default: set by the model)',
    )
    add(
        '--profile',
        choices=('paper', 'release'),
        help='sampling rules of the paper or of its released program (default: set by the model)',
    )
    add(
        '--eta',
        type=share,
        metavar='X',
        help='randomness of the DDIM steps, from 0 to 1 (default: 0 for paper, 1 for release)',
    )


def add_gate(add: Callable, *, action: str, tries: str) -> None:
    """Adds the options of the gate, see `gate`; action, tries: their defaults, in words."""
    add(
        '--gate',
        choices=('off', 'warn', 'reroll'),
        help='warn: tell of a chunk that stands still, is cut at its border, jumps in colour or brightness, or is '
        f'saturated; reroll: also draw it again, and keep the best (default: {action})',
    )
    add(
        '--gate-tries',
        type=at_least_1,
        metavar='N',
        help=f'with --gate reroll: draw a chunk again at most N times (default: {tries})',
    )


def gate(arguments: argparse.Namespace, before: 'Gate') -> 'Gate':
    """The gate that the options ask for; what they do not say is as `before`. Raises BadInput for tries alone."""
    asked = {'action': arguments.gate, 'tries': arguments.gate_tries}
    found = dataclasses.replace(before, **{name: value for name, value in asked.items() if value is not None})
    if arguments.gate_tries is not None and found.action != 'reroll':
        raise BadInput('--gate-tries goes with --gate reroll')
    return found


DECODE_FRAMES = {
    'type': at_least_1,
    'default': 4,
    'metavar': 'N',
    'help': 'frames decoded at once; fewer take less memory (default: 4)',
}
SAMPLING = ('steps', 'profile', 'guidance_text', 'guidance_anchor', 'eta')
