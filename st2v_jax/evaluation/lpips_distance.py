"""LPIPS as an instrument: how far frames are from the anchor, which is the first frame, and from the next one."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax.convert.metric_tables import read_lpips
from st2v_jax.evaluation.instruments import Instrument, View, means
from st2v_jax.models import build
from st2v_jax.models.lpips import Lpips
from st2v_jax.video_io import to_floats

TRUNK, SMALLEST = 'alex', 32  # pixels of a side that the trunk can take
BATCH = 8  # pairs at a time; one shape, so that the network is compiled once


def instrument(*files: str | Path) -> Instrument:
    """The instrument, from the files that `read_lpips` takes. Its numbers are means: 'lpips_first' and 'lpips_next'."""
    params, network = jax.device_put(read_lpips(*files, trunk=TRUNK)), build.network(Lpips, TRUNK)
    distance = jax.jit(lambda params, a, b: network(params, to_floats(a), to_floats(b)))

    def distances(a, b):
        found = [np.zeros(0)]
        for start in range(0, len(a), BATCH):
            some = [side[start : start + BATCH] for side in (a, b)]
            short = BATCH - len(some[0])
            padded = [jnp.asarray(np.concatenate([side, np.repeat(side[-1:], short, 0)])) for side in some]
            found.append(np.asarray(distance(params, *padded))[: BATCH - short])
        return np.concatenate(found)

    def begin(_):
        first = None

        def look(view: View):
            nonlocal first
            first = view.frames[:1].copy() if first is None else first
            return {
                'lpips_first': distances(np.repeat(first, len(view.frames), 0), view.frames),
                'lpips_next': distances(view.shown[:-1], view.shown[1:]),
            }

        return look

    return Instrument(
        'lpips',
        begin,
        means,
        smallest=SMALLEST,
        modules=(),
        about={'weights': [str(file) for file in files], 'trunk': TRUNK},
    )
