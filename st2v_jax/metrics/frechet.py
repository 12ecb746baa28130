"""Frechet distance between two sets of features: FID of images, FVD of videos (Heusel et al. 2017, Unterthiner 2018).

Features are rows of numbers of any network. The distance is biased: two samples of one distribution are not at 0 but
at a floor that falls with the number of rows. Only distances of equally many rows compare, and next to their floor.
"""

from collections.abc import Sequence

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances of features [n, d] and [m, d], >= 0.

    |mean1 - mean2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64, with n - 1 and m - 1 in the covariances; lower is
    closer. If Ci = Ri^T Ri, the trace of the root is the sum of the singular values of R1 R2^T. This stays exact for
    singular covariances, as of fewer rows than columns.
    """
    (mean1, root1), (mean2, root2) = _moments(first), _moments(second)
    if len(mean1) != len(mean2):
        raise ValueError(f'features have one width, got {len(mean1)} and {len(mean2)}')
    squares = np.square(mean1 - mean2).sum() + np.square(root1).sum() + np.square(root2).sum()
    return max(0.0, float(squares - 2 * np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()))


def _moments(features):
    """The mean [d], and R with R^T R = the covariance."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise ValueError(f'the distance takes finite features [n, d] of n >= 2 rows, got {features.shape}')
    mean = features.mean(0)
    return mean, np.linalg.qr((features - mean) / np.sqrt(len(features) - 1), mode='r')


def floor(real: np.ndarray, rng: np.random.Generator, repeats: int = 10) -> dict[str, float]:
    """The distance between random halves of real features [n, d]: 'mean' and 'std' over `repeats` splits, n >= 4.

    What is this close to n // 2 rows of the real features cannot be told from them.
    """
    half = len(real) // 2
    found = []
    for _ in range(repeats):
        order = rng.permutation(len(real))
        found.append(frechet_distance(real[order[:half]], real[order[half : 2 * half]]))
    return {'mean': float(np.mean(found)), 'std': float(np.std(found))}


def over_sizes(
    real: np.ndarray, made: np.ndarray, sizes: Sequence[int], rng: np.random.Generator, repeats: int = 5
) -> dict[str, list[float]]:
    """Distance and floor for samples of different sizes: whether the number of videos suffices.

    Args:
      real, made: features [n, d] and [m, d].
      sizes: rows of a sample, from 2 to n // 2 and to m.

    Returns:
      'sizes'; 'made', the mean distance between `size` rows of real and of made, and 'made_std', its standard
      deviation; 'floor' and 'floor_std', those of two disjoint samples of real rows.
    """
    if not sizes or min(sizes) < 2 or max(sizes) > min(len(real) // 2, len(made)):
        raise ValueError(f'sizes go from 2 to {min(len(real) // 2, len(made))}, got {list(sizes)}')
    found = {'sizes': list(sizes), 'made': [], 'made_std': [], 'floor': [], 'floor_std': []}
    for size in sizes:
        pairs = []
        for _ in range(repeats):
            order, drawn = rng.permutation(len(real)), rng.permutation(len(made))[:size]
            one, other = real[order[:size]], real[order[size : 2 * size]]
            pairs.append((frechet_distance(one, made[drawn]), frechet_distance(one, other)))
        for name, values in zip(('made', 'floor'), zip(*pairs)):
            found[name].append(float(np.mean(values)))
            found[f'{name}_std'].append(float(np.std(values)))
    return found
