"""The gate: new chunks are scored against the frames before them, and those with a fault may be drawn again.

All scores compare frames with each other, so no network is needed. What happens slowly, over many chunks, is not seen.
docs/sessions.md says what is found, and how often there is a false alarm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st2v_jax.errors import OutOfRange
from st2v_jax.metrics.colour import colour_steps, colourfulness
from st2v_jax.metrics.stagnation import block_changes
from st2v_jax.metrics.steadiness import frame_changes
from st2v_jax.video_io import to_uint8

if TYPE_CHECKING:  # the command line, which imports this, does not wait for jax
    import jax

ACTIONS = ('off', 'warn', 'reroll')

# The most that a chunk without a fault has, fixed on rendered chunks by benchmarks/gate.py
LIMITS = {'not_finite': 0.0, 'still': 12.0, 'cut': 1.9, 'colour': 3.3, 'saturation': 1.3}
WORDS = {
    'not_finite': 'has numbers that are not finite',
    'still': 'changes {0:.3g} times less than the frames before it (at most {1:g})',
    'cut': 'changes {0:.3g} times as much at its border as elsewhere (at most {1:g})',
    'colour': 'jumps in colour or brightness at its border, {0:.3g} times as far as elsewhere (at most {1:g})',
    'saturation': 'is {0:.3g} times as colourful as the frames before it (at most {1:g})',
}
LEVELS = 0.5  # of 255, added to both sides of a ratio, so that noise where nothing else changes is no fault


@dataclass(frozen=True)
class Gate:
    """What is done about a chunk with a fault.

    Attributes:
      action: 'off' scores nothing, 'warn' tells, 'reroll' also draws the chunk again with other noise, and keeps the
        best.
      tries: how often a chunk is drawn again at most.
    """

    action: str = 'off'
    tries: int = 3

    def __post_init__(self):
        if self.action not in ACTIONS:
            raise ValueError(f'the action of a gate is one of {", ".join(ACTIONS)}, not {self.action!r}')
        if self.tries < 1:
            raise ValueError(f'a chunk is drawn again at least once, not {self.tries} times')

    @property
    def redraws(self) -> int:
        """How often a chunk is drawn again at most; only this determines frames."""
        return self.tries if self.action == 'reroll' else 0


OFF = Gate()


def scores(frames: np.ndarray, before: np.ndarray | None = None) -> dict[str, float]:
    """How far a new chunk is from being one with the frames before it: above its limit, a score is a fault.

    Args:
      frames: [n, h, w, 3] of the chunk, in [-1, 1] or uint8.
      before: [m, h, w, 3] the last frames before it; None for a first chunk, of which only 'not_finite' is known.

    Returns:
      Those that can be computed of
      'not_finite': 1 if a number is not finite, else 0; with 1, nothing else is computed.
      'still': change between frames before the border / change from the border on, medians of the block that changes
        most, see `block_changes`.
      'cut': mean change at the border / the largest elsewhere.
      'colour': distance of all colours at the border, see `colour_steps`, / the largest elsewhere.
      'saturation': the largest colourfulness of the chunk / that before it.
    """
    if not np.isfinite(frames).all():
        return {'not_finite': 1.0}
    found = {'not_finite': 0.0}
    if before is None:
        return found
    shown, border = np.concatenate([to_uint8(before), to_uint8(frames)]), len(before) - 1
    elsewhere = np.arange(len(shown) - 1) != border
    if border:
        changes = block_changes(shown)
        found['still'] = _ratio(np.median(changes[:border]), np.median(changes[border:]))
    if elsewhere.any():
        for name, steps in (('cut', frame_changes(shown)), ('colour', colour_steps(shown))):
            found[name] = _ratio(steps[border], steps[elsewhere].max())
    colourful = colourfulness(shown)
    found['saturation'] = _ratio(colourful[border + 1 :].max(), colourful[: border + 1].max())
    return found


def _ratio(one, other):
    return (float(one) + LEVELS) / (float(other) + LEVELS)


def faults(scores: Mapping[str, float]) -> list[str]:
    """The names of the scores that are above their limits."""
    return [name for name, score in scores.items() if score > LIMITS[name]]


class Trial:
    """The draws of one chunk: whether another one is wanted, and which is kept.

        trial = Trial(gate, before)
        while trial.goes_on:
            with trial.not_finite():
                ...  # makes draw number trial.draw
                if trial.is_best(frames):
                    ...  # keeps it

    Args:
      gate: what is done; with 'off', the only draw is not looked at.
      before: [1, m, h, w, 3] the frames before it; None for a first chunk.

    Attributes:
      scored: the scores of each draw.
      kept: the number of the best draw so far; the first of equal ones.
    """

    def __init__(self, gate: Gate, before: np.ndarray | jax.Array | None):
        self._gate, self._before = gate, before
        self.scored: list[dict[str, float]] = []
        self.kept = 0

    @property
    def draw(self) -> int:
        """The number of the next draw, from 0."""
        return len(self.scored)

    @property
    def goes_on(self) -> bool:
        """Whether another draw is wanted."""
        return not self.scored or (bool(faults(self.scored[-1])) and len(self.scored) <= self._gate.redraws)

    def is_best(self, frames: np.ndarray | jax.Array) -> bool:
        """Scores the frames [1, n, h, w, 3] of the next draw; whether it is the best so far."""
        if self._gate.action == 'off':
            self.scored.append({})
        else:
            before = None if self._before is None else np.asarray(self._before)[0]
            self.scored.append(scores(np.asarray(frames)[0], before))
        if _badness(self.scored[-1]) < _badness(self.scored[self.kept]):
            self.kept = len(self.scored) - 1
        return self.kept == len(self.scored) - 1

    @contextlib.contextmanager
    def not_finite(self) -> Iterator[None]:
        """OutOfRange in this block is a fault of the next draw; it is raised where all draws have it."""
        try:
            yield
        except OutOfRange:
            self.scored.append({'not_finite': 1.0})
            if all(found.get('not_finite') for found in self.scored) and not self.goes_on:
                raise

    def line(self, chunk: int) -> str | None:
        """What was found and done, in a line; None if the first draw has no fault."""
        if not faults(self.scored[0]):
            return None
        told = f'chunk {chunk} {_described(self.scored[0])}'
        if not self._gate.redraws:
            return f'{told}; it is kept'
        again = f'{told}; drawn again {times(len(self.scored) - 1)}, '
        if not self.kept:
            return f'{again}never better: the first draw is kept'
        left = self.scored[self.kept]
        rest = f'which {_described(left)}' if faults(left) else 'which has no fault'
        return f'{again}draw {self.kept} is kept, {rest}'


def _badness(scores):
    """The largest score in shares of its limit; infinite where numbers are not finite."""
    if scores.get('not_finite'):
        return float('inf')
    return max((score / LIMITS[name] for name, score in scores.items() if LIMITS[name]), default=0.0)


def _described(scores):
    return ' and '.join(WORDS[name].format(scores[name], LIMITS[name]) for name in faults(scores))


def times(count: int) -> str:
    """How often, in words."""
    return 'once' if count == 1 else f'{count} times'
