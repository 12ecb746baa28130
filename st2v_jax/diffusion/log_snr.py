"""Noise levels of the Refiner: a log-SNR that falls like a cosine schedule's, shifted for large images.

Tables are float64 numpy, as in `schedule`.
"""

from dataclasses import dataclass

import numpy as np

from st2v_jax.diffusion.schedule import Level


@dataclass(frozen=True)
class RefinerProcess:
    """The forward process of the Refiner, which predicts v. The defaults are the released ones.

    Attributes:
      steps: length of the table.
      scale_clean, scale_noisy: the log-SNR is lowered by 2 log(scale_clean) at its clean end (Hoogeboom et al. 2023,
        arXiv:2301.11093, section 3.1), by 2 log(scale_noisy) at its noisy end, and by a weighted mean in between.
      log_snr_max: the unshifted log-SNR goes from this to minus this.
    """

    steps: int = 1000
    scale_clean: float = 2.0
    scale_noisy: float = 4.0
    log_snr_max: float = 15.0

    def __post_init__(self):
        if self.steps < 2:
            raise ValueError(f'a diffusion process has at least 2 steps, not {self.steps}')
        if min(self.scale_clean, self.scale_noisy, self.log_snr_max) <= 0:
            raise ValueError(
                f'scales and log_snr_max are positive, not {self.scale_clean}, {self.scale_noisy}, {self.log_snr_max}'
            )


def refiner_levels(process: RefinerProcess) -> Level:
    """The table of all levels of the process, leaves [process.steps]; t = 0 is the cleanest.

    The last level is pure noise: sigma is stretched linearly from its least value so that it ends at 1. (`noise_levels`
    stretches alpha instead; the tables differ.)
    """
    noisy = np.linspace(0, 1, process.steps, dtype=np.float64)
    angle = np.interp(noisy, (0, 1), np.arctan(np.exp([-process.log_snr_max / 2, process.log_snr_max / 2])))
    shift = (1 - noisy) * np.log(process.scale_clean) + noisy * np.log(process.scale_noisy)
    sigma = _sigma(np.log(np.tan(angle)) + shift)
    sigma = sigma[0] + (sigma - sigma[0]) * ((1 - sigma[0]) / (sigma[-1] - sigma[0]))
    sigma[-1] = 1
    return Level(np.sqrt((1 - sigma) * (1 + sigma)), sigma, np.arange(process.steps))


def level_at(table: Level, t: np.ndarray) -> Level:
    """Levels at any t [n], also between entries of the table, where log(sigma / alpha) is linear.

    The t of these levels is rounded, because the network receives whole steps only.
    """
    t = np.asarray(t, np.float64)
    last = len(table.t) - 1
    if t.min() < 0 or t.max() > last:
        raise ValueError(f't is between 0 and {last}, not {t.min()} .. {t.max()}')
    with np.errstate(divide='ignore'):  # the last entry is infinite
        ratio = np.log(table.sigma) - np.log(table.alpha)
    below = np.floor(t).astype(int)
    part = t - below
    between = (1 - part) * ratio[below] + np.where(part > 0, part, 1) * ratio[np.minimum(below + 1, last)]
    log_ratio = np.where(part > 0, between, ratio[below])
    return Level(_sigma(-log_ratio), _sigma(log_ratio), np.round(t).astype(int))


def sdedit_levels(table: Level, steps: int, start: int = 599) -> Level:
    """The levels of `steps` steps from entry `start` to the clean end, leaves [steps + 1], noisiest first.

    As in the release: of steps + 1 points with trailing spacing the last is left out, so that the last step is twice as
    long as the others.
    """
    if not 0 < start < len(table.t):
        raise ValueError(f'start is between 1 and {len(table.t) - 1}, not {start}')
    if not 1 <= steps <= start:
        raise ValueError(f'{start + 1} levels are sampled in 1 to {start} steps, not {steps}')
    levels = level_at(table, start - np.arange(steps) * ((start + 1) / (steps + 1)))
    return Level(np.append(levels.alpha, 1.0), np.append(levels.sigma, 0.0), np.append(levels.t, 0))


def _sigma(log_ratio):
    """The sigma of a level with this log(sigma / alpha); given the negative, it is alpha."""
    return 1 / np.sqrt(1 + np.exp(-2 * log_ratio))
