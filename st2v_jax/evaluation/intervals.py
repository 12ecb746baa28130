"""Means with bootstrap intervals, of one sample and of paired differences."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES, SEED = 10_000, 0  # the same numbers give the same interval


class Estimate(NamedTuple):
    """A mean with its 95 % interval.

    Attributes:
      mean: nan without a value.
      low, high: the ends of the interval; the mean itself for one value.
      count: how many values there were.
    """

    mean: float
    low: float
    high: float
    count: int


def estimate(values: Sequence[float | None]) -> Estimate:
    """The mean of the values that are numbers, and its percentile interval over resampled videos (Efron 1979)."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return Estimate(float('nan'), float('nan'), float('nan'), 0)
    rng = np.random.default_rng(SEED)
    means = [known[rng.integers(len(known), size=len(known))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(known.mean()), float(low), float(high), len(known))


def paired(first: Sequence[float | None], second: Sequence[float | None]) -> Estimate:
    """The mean of second - first over the pairs in which both are numbers, with its interval."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return estimate([b - a for a, b in both])
