"""Colours of frames, and how far they have gone from those of the beginning: the colour shift of long videos."""

import numpy as np

from st2v_jax.video_io import to_uint8

BINS = 8  # of each channel


def mean_colours(frames: np.ndarray) -> np.ndarray:
    """Mean colour [f, 3] of frames [f, h, w, 3], red, green and blue in 0..255."""
    return np.array([to_uint8(frame).mean((0, 1)) for frame in frames])


def colour_distances(colours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Euclidean distance [f] of mean colours [f, 3] from a reference [3], in levels of 0..255 (at most 442)."""
    return np.linalg.norm(np.asarray(colours, np.float64) - reference, axis=-1)


def histograms(frames: np.ndarray) -> np.ndarray:
    """Shares [f, 512] of pixels of frames [f, h, w, 3] in the cells of the colour cube, 8 to a side."""
    cells = [(to_uint8(frame) // (256 // BINS)).astype(int) @ (BINS**2, BINS, 1) for frame in frames]
    return np.array([np.bincount(cell.ravel(), minlength=BINS**3) / cell.size for cell in cells])


def histogram_distances(shares: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Half the sum of absolute differences [f] of histograms [f, n] from a reference [n]: 0 for equal, 1 for disjoint.

    This is total variation, 1 minus the histogram intersection of Swain and Ballard 1991.
    """
    return np.abs(np.asarray(shares, np.float64) - reference).sum(-1) / 2


def colour_steps(frames: np.ndarray) -> np.ndarray:
    """How far [f - 1] the colours of frames [f, h, w, 3] are from those of the next frame, in levels of 0..255.

    This is the Wasserstein distance of the values of a channel, wherever in the picture they are; mean over channels.
    Unlike a distance of histograms, it does not depend on where their cells end.
    """
    shares = np.array(
        [
            [
                np.bincount(channel.ravel(), minlength=256) / channel.size
                for channel in np.moveaxis(to_uint8(frame), -1, 0)
            ]
            for frame in frames
        ]
    )
    return np.abs(np.diff(shares.cumsum(-1), axis=0)).sum(-1).mean(-1)


def colourfulness(frames: np.ndarray) -> np.ndarray:
    """Colourfulness [f] of frames [f, h, w, 3] after Hasler and Suesstrunk 2003; 0 is grey, 109 extremely colourful.

    Drift towards too much or too little saturation shows in it.
    """
    found = []
    for frame in frames:
        red, green, blue = np.moveaxis(to_uint8(frame).astype(np.float32), -1, 0)
        opponent = np.stack([red - green, (red + green) / 2 - blue])
        found.append(np.hypot(*opponent.std((1, 2))) + 0.3 * np.hypot(*opponent.mean((1, 2))))
    return np.array(found, np.float64)
