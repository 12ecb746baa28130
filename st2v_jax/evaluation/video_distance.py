"""Frechet video distance of measured videos: how far their features are from those of real ones, next to the floor."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.errors import BadInput
from st2v_jax.evaluation import stored
from st2v_jax.evaluation.pages import table
from st2v_jax.evaluation.results import Record
from st2v_jax.evaluation.tables import shown
from st2v_jax.metrics.frechet import floor, frechet_distance, over_sizes
from st2v_jax.storage.atomic import write_bytes

FILE = 'fvd.json'
SEED, REPEATS = 0, 20  # the same features give the same numbers
FEWEST, SIZES = 4, 6  # videos of each side at least; points of the curve


def features(records: Sequence[Record], settings: dict[str, Any]) -> np.ndarray:
    """The features [n, 400] of the videos that I3D has looked at with these settings."""
    found = [record['measured'].get('i3d') for record in records]
    return np.array([each['curves']['i3d'] for each in found if each and each['settings'] == settings])


def check(real: int, made: int) -> None:
    """Raises BadInput for fewer videos than a distance needs."""
    if min(real, made) < FEWEST:
        raise BadInput(f'the distance needs {FEWEST} videos of each side at least, got {made} and {real} real ones')


def distances(real: np.ndarray, made: np.ndarray) -> dict[str, Any]:
    """A JSON dict of features [n, d] and [m, d].

    Returns:
      'distance' of all; 'floor' of random halves of the real ones, its 'mean' and 'std'; 'curve', see
      `frechet.over_sizes`; 'real' and 'made', how many videos there are.

    Raises BadInput for fewer than 4 videos.
    """
    check(len(real), len(made))
    largest = min(len(real) // 2, len(made))
    sizes = sorted({int(round(size)) for size in np.geomspace(2, largest, SIZES)})
    return {
        'real': len(real),
        'made': len(made),
        'distance': frechet_distance(real, made),
        'floor': floor(real, np.random.default_rng(SEED), REPEATS),
        'curve': over_sizes(real, made, sizes, np.random.default_rng(SEED), REPEATS),
    }


def read(folder: str | Path) -> dict[str, Any] | None:
    """What `write` wrote to a folder, None if it has none; raises BadInput for another file in its place."""
    path = Path(folder, FILE)
    return (
        stored.read(path, 'st2v evaluate --reference', ('real', 'made', 'distance', 'floor')) if path.exists() else None
    )


def write(folder: str | Path, found: dict[str, Any]) -> None:
    """Writes what `distances` found to fvd.json and fvd.md."""
    curve, split = found['curve'], found['floor']
    spread = lambda mean, std: f'{shown(mean)} ± {shown(std)}'
    lines = [
        '# Frechet video distance',
        '',
        f'{shown(found["distance"])} between {found["made"]} videos and {found["real"]} real ones. Random halves of '
        f'the real ones, {found["real"] // 2} each, are {spread(split["mean"], split["std"])} apart.',
        '',
        'Both fall with the number of videos, so a row is what compares: a distance that is not clearly above real '
        'against real in the last row says nothing yet, or cannot be told from real. Means and standard deviations '
        f'are over {REPEATS} random samples.',
        '',
        *table(
            ['videos of each side', 'distance', 'real against real'],
            [
                [size, spread(*made), spread(*real)]
                for size, made, real in zip(
                    curve['sizes'],
                    zip(curve['made'], curve['made_std']),
                    zip(curve['floor'], curve['floor_std']),
                )
            ],
        ),
    ]
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_bytes(Path(folder, FILE), json.dumps(found, indent=1, allow_nan=False).encode() + b'\n')
    write_bytes(Path(folder, 'fvd.md'), '\n'.join(lines).encode())
