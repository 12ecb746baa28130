"""RAFT-Large as the flow of instruments: the flow that the paper measures MAWE with."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax.convert.metric_tables import read_raft
from st2v_jax.evaluation.instruments import Flow
from st2v_jax.models import build
from st2v_jax.models.raft import SMALLEST, STRIDE, UPDATES, Raft
from st2v_jax.video_io import to_floats

BATCH = 2  # pairs at a time; at 720x720 each has 0.35 GB of correlations


def flow(file: str | Path) -> Flow:
    """The flow, with the file of `read_raft`. Frames whose sides are no multiples of 8 are continued at two edges."""
    params, network = jax.device_put(read_raft(file)), build.network(Raft)

    @jax.jit
    def between_pairs(params, first, second):
        with jax.default_matmul_precision('float32'):  # else that of an accelerator has three digits
            return network(params, to_floats(first), to_floats(second))

    def between(frames):
        h, w = frames.shape[1:3]
        count, parts = len(frames) - 1, []
        # The last frame again: batches of one shape, so that the network is compiled once
        longer = [(0, -count % BATCH), (0, -h % STRIDE), (0, -w % STRIDE), (0, 0)]
        padded = np.pad(frames, longer, 'edge')
        for start in range(0, count, BATCH):
            some = (jnp.asarray(padded[first : first + BATCH]) for first in (start, start + 1))
            parts.append(np.asarray(between_pairs(params, *some))[:, :h, :w])
        return np.concatenate(parts)[:count]

    return Flow(between, {'flow': 'RAFT-Large', 'updates': UPDATES, 'weights': str(file)}, SMALLEST)
