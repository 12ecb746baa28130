"""Drift: what changes from the beginning of a long video to its end, and from chunk to chunk.

Any curve over frames can be judged, of quality, motion, colour or identity.
"""

import numpy as np

SHARE = 0.15  # of the video, at either end


def drift(curve: np.ndarray, share: float = SHARE) -> dict[str, float]:
    """The mean of a curve [f] over the first `share` of the frames, and over the last.

    Zhang and Agrawala 2025 (arXiv:2504.12626) report the absolute difference for the first and the last 15 %. NaN, as
    of frames without a face, is left out.

    Returns:
      'first' and 'last' in the unit of the curve, 'drift', last - first, and 'ratio', last / first (nan for 0 / 0). An
      end takes at least one frame.
    """
    curve = np.asarray(curve, np.float64)
    if curve.ndim != 1 or not len(curve) or not 0 < share <= 0.5:
        raise ValueError(f'drift takes a curve [f] and a share of it in 0..0.5, got {curve.shape} and {share}')
    n = max(1, round(share * len(curve)))
    first, last = _mean(curve[:n]), _mean(curve[-n:])
    with np.errstate(divide='ignore', invalid='ignore'):
        return {'first': first, 'last': last, 'drift': last - first, 'ratio': float(np.divide(last, first))}


def over_chunks(curve: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The mean [k] of a curve [f] in each of k chunks that begin at frames `starts` [k], counted from 0 and rising."""
    curve, starts = np.asarray(curve, np.float64), np.asarray(starts, int)
    if not len(starts) or starts[0] < 0 or starts[-1] >= len(curve) or (np.diff(starts) <= 0).any():
        raise ValueError(f'chunks start at rising frames from 0 to {len(curve) - 1}, got {starts.tolist()}')
    return np.array([_mean(chunk) for chunk in np.split(curve, starts)[1:]])


def _mean(values):
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float('nan')
