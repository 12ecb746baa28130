"""re-ID: does a person keep their face? (Henschel et al. 2024, equations 10 and 11)"""

from collections.abc import Sequence

import numpy as np

from st2v_jax.metrics.embeddings import cosines


def re_id(faces: Sequence[np.ndarray]) -> dict[str, float | int | np.ndarray]:
    """Similarity of the faces in consecutive frames.

    Args:
      faces: for each of f frames the features [k, d] of the k faces in it, of any detector and network; k may be 0.

    Returns:
      'curve' [f - 1], for each pair of frames the largest cosine between a face of one and a face of the other
        (equation 10), nan where one has no face; 'mean', over the pairs that have faces (equation 11), in -1..1, higher
        is better, nan without such a pair; 'pairs', how many those are.
    """
    curve = np.array([_best(now, following) for now, following in zip(faces[:-1], faces[1:])], np.float64)
    known = curve[~np.isnan(curve)]
    return {'curve': curve, 'mean': float(known.mean()) if len(known) else float('nan'), 'pairs': len(known)}


def _best(now, following):
    if not len(now) or not len(following):
        return np.nan
    return cosines(np.asarray(now)[:, None], np.asarray(following)[None]).max()
