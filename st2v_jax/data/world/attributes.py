"""What a scene can show: the names used in captions, and their looks."""

from typing import NamedTuple

import numpy as np

COLOURS = ('red', 'orange', 'yellow', 'green', 'cyan', 'blue', 'purple', 'pink')
SHAPES = ('ball', 'box', 'star', 'triangle', 'ring', 'heart', 'cross')
PATTERNS = ('plain', 'striped', 'dotted', 'checkered')
# The first four are tracking shots: the camera follows the object, so that it always stays in view.
MOTIONS = ('moves left', 'moves right', 'rises', 'falls', 'bounces', 'circles', 'swings', 'spins', 'pulses')
TRACKING = 4
CAMERAS = ('still', 'pans left', 'pans right', 'pans up', 'pans down', 'zooms in and out', 'follows')
BACKGROUNDS = ('meadow', 'desert', 'ocean', 'snow', 'night sky', 'lava', 'moon')

# Direction of the camera over the ground, x to the right and y down, for the motions 0..3 and the pans 1..4.
DIRECTIONS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)], np.int32)

COLOUR_RGB = np.array(
    [
        (0.90, 0.09, 0.11),
        (1.00, 0.52, 0.04),
        (1.00, 0.90, 0.12),
        (0.12, 0.72, 0.20),
        (0.10, 0.86, 0.90),
        (0.12, 0.30, 0.96),
        (0.58, 0.16, 0.84),
        (1.00, 0.43, 0.72),
    ],
    np.float32,
)

# Stripes, dots and checks: near white, but dark on yellow and cyan, where white would not show.
ACCENT_RGB = np.array(
    [
        (1.00, 0.92, 0.88),
        (1.00, 0.96, 0.86),
        (0.42, 0.26, 0.04),
        (0.92, 1.00, 0.86),
        (0.05, 0.30, 0.42),
        (0.88, 0.94, 1.00),
        (0.96, 0.88, 1.00),
        (1.00, 0.94, 0.97),
    ],
    np.float32,
)

CLASHES = {  # colours that would be hard to see on a background
    'meadow': ('green',),
    'desert': ('orange', 'yellow'),
    'ocean': ('blue', 'cyan'),
    'snow': ('cyan',),
    'night sky': ('blue', 'purple'),
    'lava': ('red', 'orange'),
    'moon': (),
}


class Ground(NamedTuple):
    """Looks of one background: lengths in pixels of a 128 pixel frame, colours in [0, 1].

    Attributes:
      low: colour of the valleys of the noise.
      middle: colour between valleys and crests.
      high: colour of the crests.
      flat: how many times wider than high the noise is, 1 or 2.
      ridge: from 0, soft hills, to 1, a net of bright ridges.
      petals: of the outline of a landmark, radius * (1 + wave * cos(petals * angle)).
      wave: of the same outline.
      radius: of a landmark.
      core: radius of the inner disc, as a share of the radius.
      petal_a: one of the two colours of landmarks.
      petal_b: the other one.
      core_rgb: colour of the inner disc.
      density: share of the cells that hold a landmark.
    """

    low: tuple
    middle: tuple
    high: tuple
    flat: float
    ridge: float
    petals: int
    wave: float
    radius: float
    core: float
    petal_a: tuple
    petal_b: tuple
    core_rgb: tuple
    density: float


GROUNDS = {
    'meadow': Ground(
        (0.22, 0.46, 0.20),
        (0.34, 0.58, 0.26),
        (0.52, 0.70, 0.36),
        1,
        0.0,
        5,
        0.28,
        5.6,
        0.42,
        (0.97, 0.95, 0.92),
        (0.86, 0.72, 0.90),
        (0.96, 0.78, 0.28),
        0.62,
    ),
    'desert': Ground(
        (0.74, 0.57, 0.38),
        (0.85, 0.70, 0.48),
        (0.94, 0.83, 0.62),
        2,
        0.4,
        3,
        0.10,
        6.2,
        0.62,
        (0.48, 0.36, 0.28),
        (0.56, 0.42, 0.34),
        (0.68, 0.54, 0.44),
        0.50,
    ),
    'ocean': Ground(
        (0.10, 0.34, 0.50),
        (0.15, 0.45, 0.60),
        (0.36, 0.66, 0.74),
        2,
        0.7,
        0,
        0.0,
        6.2,
        0.62,
        (0.86, 0.95, 0.97),
        (0.74, 0.89, 0.94),
        (0.30, 0.60, 0.70),
        0.50,
    ),
    'snow': Ground(
        (0.72, 0.80, 0.90),
        (0.84, 0.89, 0.95),
        (0.96, 0.97, 0.99),
        1,
        0.0,
        6,
        0.20,
        6.6,
        0.42,
        (0.20, 0.40, 0.36),
        (0.26, 0.46, 0.44),
        (0.48, 0.64, 0.60),
        0.50,
    ),
    'night sky': Ground(
        (0.04, 0.05, 0.14),
        (0.08, 0.09, 0.24),
        (0.19, 0.16, 0.38),
        1,
        0.0,
        4,
        0.50,
        5.4,
        0.34,
        (0.86, 0.86, 0.74),
        (0.70, 0.80, 0.92),
        (1.00, 1.00, 0.94),
        0.60,
    ),
    'lava': Ground(
        (0.16, 0.09, 0.11),
        (0.27, 0.13, 0.12),
        (0.62, 0.24, 0.11),
        1,
        1.0,
        3,
        0.12,
        6.2,
        0.58,
        (0.42, 0.36, 0.38),
        (0.34, 0.30, 0.34),
        (0.56, 0.48, 0.48),
        0.45,
    ),
    'moon': Ground(
        (0.40, 0.40, 0.43),
        (0.52, 0.52, 0.54),
        (0.66, 0.66, 0.66),
        1,
        0.0,
        0,
        0.0,
        7.0,
        0.70,
        (0.78, 0.78, 0.77),
        (0.72, 0.72, 0.73),
        (0.30, 0.30, 0.34),
        0.55,
    ),
}


def ground_table() -> Ground:
    """All grounds as one Ground of arrays, with a leading axis over BACKGROUNDS."""
    rows = [GROUNDS[name] for name in BACKGROUNDS]
    return Ground(*(np.array(column, np.float32) for column in zip(*rows)))


def allowed_colours() -> tuple[np.ndarray, np.ndarray]:
    """A table [backgrounds, colours] of colour ids with the allowed ones first, and their number [backgrounds]."""
    lists = [[i for i, name in enumerate(COLOURS) if name not in CLASHES[ground]] for ground in BACKGROUNDS]
    table = np.array([row + [row[0]] * (len(COLOURS) - len(row)) for row in lists], np.int32)
    return table, np.array([len(row) for row in lists], np.int32)
