"""Progress bars and warnings."""

import sys
import textwrap
import time


def warn(message: str) -> None:
    """Prints a warning."""
    print(f'warning: {message}', file=sys.stderr, flush=True)


class Progress:
    """The progress bars of one video, one for each stage. A context manager.

    Attributes:
      quiet: whether no bars are shown.
      total: what the current stage counts up to; None where that is unknown.
    """

    def __init__(self, label: str, *, quiet: bool):
        self.quiet, self.total = quiet, None
        self._label, self._bar = textwrap.shorten(label, 24, placeholder='...'), None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def stage(self, text: str, total: int | None, unit: str = 'frames') -> None:
        """Starts the bar of a stage that counts up to `total`, in `unit`."""
        self.__exit__()
        self.total, self._unit, self._began = total, unit, time.monotonic()
        if self.quiet:
            return
        from tqdm import tqdm

        interval = 0.2 if sys.stderr.isatty() else 5.0  # a log file needs no animation
        done = '{percentage:3.0f}%|{bar:20}|' if total else f'{{n}} {unit}'
        # how far it is comes first: a narrow terminal shows only the beginning
        layout = f'{done} {{desc}}{{postfix}} [{{elapsed}}' + ('<{remaining}]' if total else ']')
        self._bar = tqdm(
            desc=f'"{self._label}" {text}', total=total, bar_format=layout, mininterval=interval, smoothing=0.1
        )

    def to(self, done: float, text: str | None = None) -> None:
        """Moves the bar to `done`; `text` replaces its description."""
        if self._bar is None:
            return
        if text is not None:
            self._bar.set_description_str(f'"{self._label}" {text}', refresh=False)
        self._bar.set_postfix_str(f'{done / (time.monotonic() - self._began):.2f} {self._unit}/s', refresh=False)
        self._bar.update(done - self._bar.n)
        if done == self.total:
            self._bar.refresh()
