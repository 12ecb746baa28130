"""Several processes that train together, such as one on each host of a TPU pod or a cluster.

All of them run the same program on the same mesh. Each one feeds its own devices; the first one writes. They share one
workdir.
"""

import atexit
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax._src.clusters import ClusterEnv, K8sCluster  # jax has no public function that detects a cluster
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

# How jax, its coordination service and the libraries that exchange arrays say that another process does not answer
GONE = re.compile('gloo|nccl|coordination ?service|heartbeat', re.IGNORECASE)


def join(config: ConfigDict) -> None:
    """Joins the other processes, before any device is used; does nothing for a run of one process.

    config: has processes, either 'auto' or a number. 'auto' joins the processes of a TPU pod, SLURM, Open MPI or
        Kubernetes if jax detects one, and otherwise runs one process. A number above 1 needs process, which is the
        number of this process, and coordinator, which is host:port of process 0.

    Raises ValueError if the settings do not fit together, or if a cluster is detected but cannot be joined.
    """
    if jax.distributed.is_initialized():
        return
    if config.processes == 'auto':
        if _one_of_several():
            jax.distributed.initialize()
        return
    count = int(config.processes) if str(config.processes).isdecimal() else 0
    if not count:
        raise ValueError(f"distributed.processes must be 'auto' or a number of at least 1, not {config.processes!r}")
    if count == 1:
        return
    if not config.coordinator:
        raise ValueError(f'{count} processes need distributed.coordinator, the host:port of process 0')
    jax.distributed.initialize(config.coordinator, count, config.process)


def _one_of_several():
    """Whether jax detects a cluster in which this is one of several processes.

    jax.distributed.initialize detects clusters too, but it raises an error if there is none, and it would turn a single
    task of SLURM into a cluster of one process, which sees only one of its GPUs.
    """
    for kind in ClusterEnv._cluster_types:
        # jax counts any process in a pod of Kubernetes as one of several; only those of an indexed Job are.
        if kind.opt_in_only_method or kind is K8sCluster and 'JOB_COMPLETION_INDEX' not in os.environ:
            continue
        try:
            if kind.is_env_present():
                return kind.get_process_count() > 1
        except Exception as error:  # whatever a scheduler, a metadata server or an API answers
            reason = str(error).strip().split('\n')[0] or repr(error)
            raise ValueError(
                f'jax detects a cluster ({kind.__name__}) but cannot join it: {reason}; '
                'use config.distributed.processes=1 to train alone'
            ) from error
    return False


def is_first() -> bool:
    """Whether this process writes logs and weights."""
    return jax.process_index() == 0


@contextmanager
def together() -> Iterator[None]:
    """A block in which it is a ConnectionError, in one line, if another process has gone.

    At the end of the program jax would wait minutes for that process; after this error the program ends without.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or (reason := _gone(error)) is None:
            raise
        atexit.register(os._exit, 1)  # the last that is registered comes first
        raise ConnectionError(f'another process of this run has gone ({reason})') from error


def _gone(error):
    """What is said of another process that has gone, by an error or by the first of its causes; or None."""
    reason = None
    while error is not None:
        if GONE.search(str(error)):
            reason = str(error).partition('\n')[0][:120]
        error = error.__cause__
    return reason


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process; all processes must call this at the same step."""
    return flag if jax.process_count() == 1 else bool(np.any(multihost_utils.process_allgather(np.array(flag))))
