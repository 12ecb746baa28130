"""Several processes that train together, one on each host of a TPU pod or a cluster.

All of them run the same program on the same mesh; each places and feeds what its own devices hold, the first one
writes. They read and write the same workdir.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils


def join(config):
    """Joins the others, before any device is used; does nothing for a run of one process.

    config: processes, their number: 1, or 0 for as many as the cluster says (what jax itself detects: TPU pods, SLURM,
        Open MPI, Kubernetes); any other needs process, the number of this one, and coordinator, host:port of process 0.
    """
    if config.processes == 1 or jax.distributed.is_initialized():
        return
    if config.processes and not config.coordinator:
        raise ValueError(f'{config.processes} processes need distributed.coordinator, the host:port of process 0')
    if config.processes:
        jax.distributed.initialize(config.coordinator, config.processes, config.process)
    else:
        jax.distributed.initialize()


def is_first():
    """Whether this process writes logs and weights."""
    return jax.process_index() == 0


def any_of(flag):
    """Whether the flag is set in any process; all of them ask at the same step."""
    return flag if jax.process_count() == 1 else bool(np.any(multihost_utils.process_allgather(np.array(flag))))
