"""re-ID as an instrument, with the faces that a function of the user finds."""

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from st2v_jax.errors import BadInput
from st2v_jax.evaluation.instruments import Instrument, View
from st2v_jax.metrics.faces import re_id


def instrument(embedder: str) -> Instrument:
    """The instrument; its numbers are 'reid', and 'reid_pairs', how many pairs of frames have faces.

    embedder: 'file.py:function'; function(frame uint8 [h, w, 3]) returns the features [k, d] of the k faces in it.

    Raises BadInput if there is no such function, and while measuring if it returns anything else.
    """
    found, digest = _load(embedder)

    def faces(frame):
        features = np.asarray(found(frame))
        if features.ndim != 2 or features.dtype.kind not in 'fiu':
            raise BadInput(f'{embedder} must return numbers [faces, features], not {features.dtype} {features.shape}')
        return features

    def begin(_):
        last = []

        def look(view: View):
            row = [*last, *map(faces, view.frames)]
            last[:] = row[-1:]
            return {'reid': re_id(row)['curve']}

        return look

    return Instrument('reid', begin, _numbers, modules=(), about={'embedder': embedder, 'sha256': digest})


def _numbers(curves):
    known = curves['reid'][~np.isnan(curves['reid'])]
    return {'reid': float(known.mean()) if len(known) else float('nan'), 'reid_pairs': len(known)}


def _load(embedder) -> tuple[Callable, str]:
    """(the function, the digest of its file)"""
    file, colon, name = embedder.rpartition(':')
    if not colon or not file.endswith('.py') or not name.isidentifier():
        raise BadInput(f'an embedder is FILE.py:FUNCTION, not {embedder!r}')
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise BadInput(f'{file} has no function {name}')
    return found, digest
