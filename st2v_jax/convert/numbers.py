"""Statistics of the numbers in tensors, which are read one at a time and never held together."""

from dataclasses import dataclass

import numpy as np

PIECE = 1 << 18  # numbers of a tensor that are looked at together
FLOAT16_END = 65520.0  # from here on float16 rounds to infinity


@dataclass
class Numbers:
    """Statistics of numbers, which `add` to those of others; mean, spread and limits are of the finite ones.

    Attributes:
      squares: sum of the squared distances from the mean.
      beyond_float16: how many finite ones float16 cannot hold.
    """

    count: int = 0
    zeros: int = 0
    nan: int = 0
    infinite: int = 0
    beyond_float16: int = 0
    mean: float = 0.0
    squares: float = 0.0
    min: float = np.inf
    max: float = -np.inf

    @property
    def finite(self) -> int:
        """How many are finite."""
        return self.count - self.nan - self.infinite

    def add(self, other: 'Numbers') -> None:
        """Takes the numbers of `other` in (Chan et al. 1979, for the squares)."""
        both = self.finite + other.finite
        if both:
            apart, share = other.mean - self.mean, other.finite / both
            self.squares += other.squares + apart**2 * self.finite * share
            self.mean += apart * share
        for name in ('count', 'zeros', 'nan', 'infinite', 'beyond_float16'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)

    def summary(self) -> dict[str, float | int | None]:
        """As JSON values: mean, std, min and max (None where no number is finite), share of zeros, and counts."""
        std = (self.squares / self.finite) ** 0.5 if self.finite else None
        moments = {'mean': self.mean, 'std': std, 'min': self.min, 'max': self.max}
        return {
            **{name: float(value) if self.finite else None for name, value in moments.items()},
            'zeros': self.zeros / self.count if self.count else 0.0,
            'nan': self.nan,
            'infinite': self.infinite,
            'beyond_float16': self.beyond_float16,
        }


def numbers(array: np.ndarray) -> Numbers:
    """The Numbers of an array, piece by piece: beside the array itself they take a few megabytes."""
    flat, total = array.reshape(-1), Numbers()
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE].astype(np.float64)
        part = Numbers(piece.size, piece.size - int(np.count_nonzero(piece)))
        low, high = piece.min(), piece.max()
        if not (np.isfinite(low) and np.isfinite(high)):  # rarely: most pieces are looked at no closer than this
            part.nan, part.infinite = int(np.isnan(piece).sum()), int(np.isinf(piece).sum())
            piece = piece[np.isfinite(piece)]
        if piece.size:
            part.min, part.max, part.mean = float(piece.min()), float(piece.max()), float(piece.mean())
            if max(-part.min, part.max) >= FLOAT16_END:
                part.beyond_float16 = int((np.abs(piece) >= FLOAT16_END).sum())
            piece -= part.mean
            part.squares = float(np.square(piece, out=piece).sum())  # a product with itself would start threads
        total.add(part)
    return total
