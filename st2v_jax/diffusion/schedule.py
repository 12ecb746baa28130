"""Noise levels: x_t = alpha_t x_0 + sigma_t noise. Tables are float64 numpy; they are cast where they are used."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

PREDICTIONS = ('epsilon', 'v')


@dataclass(frozen=True)
class DiffusionConfig:
    """The forward process q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I) and what the network predicts.

    beta is 'scaled linear': the square of a line from sqrt(beta_start) to sqrt(beta_end).
    """

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: str = 'epsilon'
    zero_terminal_snr: bool = False

    def __post_init__(self):
        if self.steps < 2:
            raise ValueError(f'a diffusion process has at least 2 steps, not {self.steps}')
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(f'0 < beta_start <= beta_end < 1 does not hold for {self.beta_start}, {self.beta_end}')
        if self.prediction not in PREDICTIONS:
            raise ValueError(f'prediction is one of {PREDICTIONS}, not {self.prediction!r}')
        if self.zero_terminal_snr and self.prediction == 'epsilon':
            raise ValueError("zero terminal SNR needs prediction='v': epsilon says nothing about x0 in pure noise")


class Level(NamedTuple):
    """Noise level: x = alpha * x0 + sigma * noise; t is the step index that the network receives."""

    alpha: jax.Array | np.ndarray
    sigma: jax.Array | np.ndarray
    t: jax.Array | np.ndarray


def noise_levels(config: DiffusionConfig) -> Level:
    """The table of all levels of the process, leaves [config.steps]; t = 0 is the cleanest.

    With zero_terminal_snr the square roots alpha_t are shifted and stretched so that the last is exactly zero and the
    first stays the same (Lin et al. 2023, arXiv:2305.08891, algorithm 1).
    """
    beta = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.steps, dtype=np.float64) ** 2
    alpha = np.sqrt(np.cumprod(1 - beta))
    if config.zero_terminal_snr:
        alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    return Level(alpha, np.sqrt(1 - alpha**2), np.arange(config.steps))


def ddim_levels(table: Level, steps: int) -> Level:
    """The levels of `steps` steps with leading spacing, offset by one, as released for DDIM.

    They end at the table's first entry. Leaves [steps + 1], noisiest first.
    """
    total = _total(table, steps, below=True)
    t = np.arange(steps)[::-1] * (total // steps) + 1
    return _pick(table, np.append(t, 0))


def dpm_levels(table: Level, steps: int) -> Level:
    """The levels of `steps` steps with evenly spread, rounded indices, as released for DPM-Solver++.

    They end without noise. Leaves [steps + 1], noisiest first.
    """
    total = _total(table, steps)
    t = np.round(np.linspace(0, total - 1, steps + 1))[:0:-1].astype(int)
    return _end_clean(_pick(table, t))


def trailing_levels(table: Level, steps: int) -> Level:
    """The levels of `steps` steps from the table's very last entry (Lin et al. 2023, section 3.3).

    A model with zero terminal SNR must start there, or it never sees the pure noise that it was trained on. The levels
    end without noise. Leaves [steps + 1], noisiest first.
    """
    total = _total(table, steps)
    t = np.round(total - np.arange(steps) * (total / steps)).astype(int) - 1
    return _end_clean(_pick(table, t))


def _total(table, steps, below=False):
    total = len(table.alpha)
    if not 1 <= steps <= total - below:
        raise ValueError(f'a process of {total} steps is sampled in 1 to {total - below} steps, not {steps}')
    return total


def _pick(table, t):
    return Level(*(leaf[t] for leaf in table))


def _end_clean(levels):
    return Level(np.append(levels.alpha, 1.0), np.append(levels.sigma, 0.0), np.append(levels.t, 0))
