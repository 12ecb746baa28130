"""Several processes that train together, one on each host of a TPU pod or a cluster.

All of them run the same program on the same mesh; each places and feeds what its own devices hold, the first one
writes. They read and write the same workdir.
"""

import os

import jax
import numpy as np
from jax._src.clusters import ClusterEnv, K8sCluster  # jax cannot be asked in public whether there is a cluster
from jax.experimental import multihost_utils


def join(config) -> None:
    """Joins the others, before any device is used; does nothing for a run of one process.

    config: processes, 'auto' or their number. 'auto' joins the processes of a TPU pod, SLURM, Open MPI or Kubernetes
        where jax detects one, and is else a run of one process. A number above 1 needs process, the number of this one,
        and coordinator, host:port of process 0.

    Raises ValueError for settings that do not fit together, and where a cluster is detected and cannot be joined.
    """
    if jax.distributed.is_initialized():
        return
    if config.processes == 'auto':
        if _one_of_several():
            jax.distributed.initialize()
        return
    count = int(config.processes) if str(config.processes).isdecimal() else 0
    if not count:
        raise ValueError(f"distributed.processes is 'auto' or a number from 1 on, not {config.processes!r}")
    if count == 1:
        return
    if not config.coordinator:
        raise ValueError(f'{count} processes need distributed.coordinator, the host:port of process 0')
    jax.distributed.initialize(config.coordinator, count, config.process)


def _one_of_several():
    """Whether jax detects a cluster here, in which this is one of several processes.

    jax.distributed.initialize detects clusters too, but raises where there is none, and would make a cluster of one
    process out of a single task of SLURM, which then sees only one of its GPUs.
    """
    for kind in ClusterEnv._cluster_types:
        # Any process in a pod of Kubernetes would count as one of several: only those of an indexed Job are numbered.
        if kind.opt_in_only_method or kind is K8sCluster and 'JOB_COMPLETION_INDEX' not in os.environ:
            continue
        try:
            if kind.is_env_present():
                return kind.get_process_count() > 1
        except Exception as error:  # whatever a scheduler, a metadata server or an API answers
            reason = str(error).strip().split('\n')[0] or repr(error)
            raise ValueError(
                f'jax detects a cluster ({kind.__name__}) and cannot join it: {reason}; '
                'config.distributed.processes=1 trains alone'
            ) from error
    return False


def is_first() -> bool:
    """Whether this process writes logs and weights."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process; all of them ask at the same step."""
    return flag if jax.process_count() == 1 else bool(np.any(multihost_utils.process_allgather(np.array(flag))))
