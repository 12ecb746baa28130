"""What long work shows while it goes on: a bar, and warnings."""

import sys
import textwrap
import time


def warn(message):
    print(f'warning: {message}', file=sys.stderr, flush=True)


class Progress:
    """The bars of one video, one for each stage of its work; none when quiet. A context manager.

    Attributes:
      total: what the stage at hand counts up to; None where nobody knows.
    """

    def __init__(self, label, *, quiet):
        self.quiet, self.total = quiet, None
        self._label, self._bar = textwrap.shorten(label, 24, placeholder='...'), None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def stage(self, text, total, unit='frames'):
        """A stage begins; `total` in `unit`s."""
        self.__exit__()
        self.total, self._unit, self._began = total, unit, time.monotonic()
        if self.quiet:
            return
        from tqdm import tqdm

        interval = 0.2 if sys.stderr.isatty() else 5.0  # a log file needs no animation
        done = '{percentage:3.0f}%|{bar:20}|' if total else f'{{n}} {unit}'
        layout = f'{{desc}} {done}{{postfix}} [{{elapsed}}' + ('<{remaining}]' if total else ']')
        self._bar = tqdm(
            desc=f'"{self._label}" {text}', total=total, bar_format=layout, mininterval=interval, smoothing=0.1
        )

    def to(self, done, text=None):
        """So much of the stage is done; `text` says what is being worked on."""
        if self._bar is None:
            return
        if text is not None:
            self._bar.set_description_str(f'"{self._label}" {text}', refresh=False)
        self._bar.set_postfix_str(f'{done / (time.monotonic() - self._began):.2f} {self._unit}/s', refresh=False)
        self._bar.update(done - self._bar.n)
        if done == self.total:
            self._bar.refresh()
