"""What commands share of their options: mistakes in one line, checked numbers, the command that does it again."""

import argparse
import shlex
import sys
from pathlib import Path


class Parser(argparse.ArgumentParser):
    """The parser of `python <script>`, or of `<installed>` after `pip install`."""

    def __init__(self, script, installed, description):
        self.run = installed if Path(sys.argv[0]).name == installed else f'python {script}'
        super().__init__(prog=self.run.split()[-1], description=description, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        self.exit(2, f'error: {message} (see --help)\n')

    def again(self, arguments, **named):
        """The command that does it again: the options that are not at their defaults, and the `named` ones."""
        parts = self.run.split()
        for name, value in (vars(arguments) | named).items():
            if value is None or name == 'quiet' or (name not in named and value == self.get_default(name)):
                continue
            parts.append(f'--{name.replace("_", "-")}')
            if value is not True:
                parts.append(f'{value:.15g}' if isinstance(value, float) else str(value))
        return shlex.join(parts)


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
positive = _checked(float, lambda value: 0 < value <= 1000, 'a number above 0 and up to 1000')
number = _checked(float, lambda value: abs(value) < float('inf'), 'a number')
not_negative = _checked(float, lambda value: 0 <= value < float('inf'), 'a number of at least 0')
