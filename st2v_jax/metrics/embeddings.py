"""Similarity of embeddings: the CLIP score of a video with its text, and whether frames show the same thing.

Embeddings are rows of numbers of any network; `st2v_jax.models` has the towers of CLIP. Their lengths do not matter.
"""

import numpy as np


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines [...] in -1..1 between embeddings [..., d] that broadcast. Raises ValueError for one of zeros or NaN."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError('embeddings are finite and not all zeros: one has no direction')
    return np.clip((a * b).sum(-1) / lengths, -1, 1)


def text_scores(frames: np.ndarray, text: np.ndarray) -> np.ndarray:
    """100 x cosine [f] of frame embeddings [f, d] with the text that each should show, [d] or [f, d].

    The mean is the CLIP score of the paper's table (Radford et al. 2021; Hessel et al. 2021 without their clipping at
    0 and their factor 2.5). In -100..100; for CLIP, 20 to 35 is usual. Higher is better.
    """
    return 100 * cosines(frames, text)


def frame_similarity(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Cosines of frame embeddings [f, d], f >= 2, in -1..1: {'next': [f - 1], 'first': [f]}.

    'next' compares each frame with the next ("CLIP consistency", "subject consistency" of other papers), 'first' each
    with the first, which is the curve of identity.
    """
    if len(frames) < 2:
        raise ValueError(f'similarity of frames needs at least two frames, got {len(frames)}')
    return {'next': cosines(frames[:-1], frames[1:]), 'first': cosines(frames, frames[0])}
