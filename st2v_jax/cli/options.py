"""What verbs share of their options: mistakes in one line, checked numbers, the command that does it again."""

import argparse
import shlex

from st2v_jax import __version__


class Parser(argparse.ArgumentParser):
    """The parser of a command; prog is how the user called it, such as `python sample.py` or `st2v sample`."""

    def __init__(self, prog, description, formatter_class=argparse.RawDescriptionHelpFormatter, **options):
        super().__init__(
            prog=prog, description=description, formatter_class=formatter_class, allow_abbrev=False, **options
        )
        self.add_argument('--version', action='version', version=f'st2v_jax {__version__}')

    def error(self, message):
        self.exit(2, f'error: {message} (see --help)\n')

    def again(self, arguments, **named):
        """The command that does it again: the options that are not at their defaults, and the `named` ones."""
        parts = []
        for name, value in (vars(arguments) | named).items():
            if value is None or name == 'quiet' or (name not in named and value == self.get_default(name)):
                continue
            parts.append(f'--{name.replace("_", "-")}')
            if value is not True:
                parts.append(_spelled(value))
        return f'{self.prog} {shlex.join(parts)}'


def _spelled(value):
    if isinstance(value, tuple):  # of frame_size
        return 'x'.join(map(str, value))
    return f'{value:.15g}' if isinstance(value, float) else str(value)


def given(arguments, *names):
    """{name: value} of the options that were given, for settings that have defaults of their own."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def frame_size(text):
    """'192x128' -> (192, 128), (height, width); '128' -> (128, 128)."""
    sides = text.lower().split('x')
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f'must be HEIGHTxWIDTH or one number of pixels, not {text!r}')
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


at_least_1 = _checked(int, lambda value: value >= 1, 'a whole number of at least 1')
seed = _checked(int, lambda value: 0 <= value < 2**32, f'a whole number between 0 and {2**32 - 1}')
rate = _checked(float, lambda value: 0 < value <= 1000, 'a number above 0 and up to 1000')
positive = _checked(float, lambda value: 0 < value < float('inf'), 'a number above 0')
number = _checked(float, lambda value: abs(value) < float('inf'), 'a number')
not_negative = _checked(float, lambda value: 0 <= value < float('inf'), 'a number of at least 0')
