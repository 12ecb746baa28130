"""Several processes train like one, find each other if jax detects a cluster, and go on after one was killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from configs_of import CONFIGS, stage_config
from jax._src.clusters import K8sCluster, cloud_tpu_cluster

from st2v_jax.open_model import load_weights
from st2v_jax.storage.buckets import located
from st2v_jax.training import processes

RUN = (
    'train.py',
    '--config',
    'configs/autoencoder.py:tiny',
    '--config.steps=2',
    '--config.log_every=1',
    '--config.checkpoint_every=1',
    '--config.mesh.data=1',
    '--config.model.vae.block_channels=(8,)',
)
STEPS = 40  # of a run that is killed in the middle

AUTO = stage_config('cam').distributed
CLUSTER_VARIABLES = ('SLURM_', 'OMPI_', 'TPU_', 'MEGASCALE_', 'KUBERNETES_', 'JOB_COMPLETION_INDEX')


def start(workdir, *options, **environment):
    """Runs train.py on one device, in another process."""
    flags = os.environ['XLA_FLAGS'].replace('--xla_force_host_platform_device_count=8', '').strip()
    return subprocess.Popen(
        [sys.executable, *RUN, '--workdir', str(workdir), *options],
        cwd=CONFIGS.parent,
        env={**os.environ, 'XLA_FLAGS': flags, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*runs):
    for run, (_, err) in [(run, run.communicate(timeout=300)) for run in runs]:
        assert run.returncode == 0, err[-3000:]


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


def slurm(tasks, number=0):
    """The variables that SLURM sets for a task on this machine."""
    return {
        'SLURM_JOB_ID': '4711',
        'SLURM_STEP_NODELIST': 'localhost',
        'SLURM_NTASKS': str(tasks),
        'SLURM_PROCID': str(number),
        'SLURM_LOCALID': str(number),
    }


@pytest.mark.slow
def test_two_tasks_of_slurm_train_as_one_process(tmp_path, unoptimised):
    finish(start(tmp_path / 'one'))
    port = free_port()
    # parameters and batches are split over both, so that checkpoints and weights are gathered from both
    finish(
        *(
            start(tmp_path / 'two', '--config.mesh.fsdp=2', JAX_COORDINATOR_PORT=port, **slurm(2, number))
            for number in range(2)
        )
    )
    rows = [
        [json.loads(row) for row in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()]
        for name in ('one', 'two')
    ]
    for one, two in zip(*rows, strict=True):
        assert one['step'] == two['step']
        np.testing.assert_allclose([one['loss'], one['grad_norm']], [two['loss'], two['grad_norm']], rtol=1e-5)
    # All parameters together, in 16 bits: the biases of keys have no gradient and move only by rounding.
    load = lambda name: jax.tree.leaves(load_weights(tmp_path / name / 'weights', ['vae'])[1])
    one, two = (np.concatenate([leaf.ravel() for leaf in load(name)]) for name in ('one', 'two'))
    assert np.linalg.norm(one - two) < 1e-3 * np.linalg.norm(one)
    steps = lambda name: sorted(path.name for path in (tmp_path / name / 'checkpoints').iterdir())
    assert steps('one') == steps('two') == ['1', '2']


def state(workdir, step):
    """All numbers of a checkpoint, in one array."""
    folder, reader = workdir / 'checkpoints' / str(step) / 'default', ocp.StandardCheckpointer()
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    here = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    tree = reader.restore(folder, jax.tree.map(here, reader.metadata(folder).item_metadata.tree))
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def together(count, workdir, *options):
    """Starts processes that split all parameters between them."""
    meet = (f'--config.distributed.processes={count}', f'--config.distributed.coordinator=127.0.0.1:{free_port()}')
    options = (f'--config.steps={STEPS}', '--config.log_every=4', f'--config.mesh.fsdp={count}', *meet, *options)
    return [start(workdir, *options, f'--config.distributed.process={number}') for number in range(count)]


@pytest.mark.slow
def test_a_run_goes_on_after_one_of_its_processes_was_killed(tmp_path, bucket, unoptimised):
    """The other ends, and the same command reaches the numbers of a run left alone, which here is not in a bucket.

    It ends with our line, at once, if it exchanges arrays with the one that has gone; if it waits for it, as for a
    checkpoint, jax aborts it after 100 seconds.
    """
    undisturbed = tmp_path / 'runs' / 'new'  # in a folder that the first of both makes
    finish(*together(2, undisturbed, f'--config.checkpoint_every={STEPS}'))
    workdir = located(bucket) / 'killed'
    first, second = together(2, workdir, '--config.checkpoint_every=4')
    while not (workdir / 'checkpoints' / '4' / 'commit_success.txt').exists():
        assert first.poll() is None and second.poll() is None, first.communicate()[1][-3000:]
        time.sleep(0.1)
    second.kill()
    second.communicate()
    said = first.communicate(timeout=300)[1]
    assert first.returncode in (1, -signal.SIGABRT), said[-3000:]
    if first.returncode == 1:
        assert re.match('error: another process of this run has gone .* checkpoints stay in ', said.splitlines()[-1])
    else:
        assert 'another task died' in said
    assert not (workdir / 'weights').exists()
    finish(*together(2, workdir, '--config.checkpoint_every=20'))
    np.testing.assert_array_equal(state(workdir, STEPS), state(undisturbed, STEPS))
    rows = (workdir / 'metrics.jsonl').read_text().splitlines()
    assert json.loads(rows[-1])['step'] == STEPS
    assert list(workdir.glob('tensorboard/events*'))
    load_weights(workdir / 'weights', ['vae'])


def test_two_processes_meet_where_they_are_told_to(tmp_path):
    program = (
        'import sys; from pathlib import Path; from ml_collections import ConfigDict\n'
        'from st2v_jax.training import processes\n'
        'number, coordinator = int(sys.argv[1]), sys.argv[2]\n'
        'processes.join(ConfigDict({"processes": "2", "process": number, "coordinator": coordinator}))\n'
        'Path(sys.argv[1]).write_text(f"{processes.is_first()} {processes.any_of(number == 1)}")'
    )
    where = f'127.0.0.1:{free_port()}'
    path = {**os.environ, 'PYTHONPATH': str(CONFIGS.parent)}
    runs = [
        subprocess.Popen([sys.executable, '-c', program, str(number), where], cwd=tmp_path, env=path)
        for number in range(2)
    ]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert [(tmp_path / name).read_text() for name in '01'] == ['True True', 'False True']


@pytest.fixture
def joined(monkeypatch):
    """Records the arguments of jax.distributed.initialize, which does nothing; there is no cluster."""
    calls = []
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *args, **kwargs: calls.append((args, kwargs)))
    for name in list(os.environ):
        if name.startswith(CLUSTER_VARIABLES):
            monkeypatch.delenv(name)
    return calls


@pytest.mark.parametrize(
    'environment, several',
    [
        ({}, False),
        (slurm(2, 1), True),
        (slurm(1), False),
        ({'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911', 'OMPI_COMM_WORLD_SIZE': '4'}, True),
        ({'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911', 'OMPI_COMM_WORLD_SIZE': '1'}, False),
        ({'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '1'}, True),
        ({'KUBERNETES_SERVICE_HOST': '10.0.0.1'}, False),  # in any pod, such as a notebook
        ({'TPU_WORKER_HOSTNAMES': 'a,b', 'TPU_WORKER_ID': '1', 'MEGASCALE_NUM_SLICES': '1'}, True),
        ({'TPU_WORKER_HOSTNAMES': 'a', 'TPU_WORKER_ID': '0', 'MEGASCALE_NUM_SLICES': '1'}, False),
    ],
)
def test_a_cluster_of_several_processes_is_joined(environment, several, joined, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, 'kubernetes', kubernetes())
    monkeypatch.setattr(K8sCluster, 'get_process_count', lambda: 2)
    if 'TPU_WORKER_ID' in environment:
        monkeypatch.setattr(cloud_tpu_cluster, 'running_in_cloud_tpu_vm', True)
        monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
    processes.join(AUTO)
    assert joined == [((), {})] * several


def kubernetes():
    """A stand-in for the client of Kubernetes, which jax looks for before it asks for the number of processes."""
    nothing = lambda *args: None
    client = types.SimpleNamespace(
        CoreV1Api=nothing, BatchV1Api=nothing, exceptions=types.SimpleNamespace(ApiException=Exception)
    )
    module = types.ModuleType('kubernetes')
    module.config, module.client = types.SimpleNamespace(load_incluster_config=nothing), client
    return module


def test_a_cluster_that_cannot_be_asked_is_one_line(joined, monkeypatch):
    for name, value in {**slurm(2), 'SLURM_NTASKS': 'two'}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r'jax detects a cluster \(SlurmCluster\) but cannot join it: .*two.*=1 '):
        processes.join(AUTO)
    processes.join(stage_config('cam', **{'distributed.processes': '1'}).distributed)
    assert not joined


@pytest.mark.parametrize(
    'count, message',
    [
        ('2', '2 processes need distributed.coordinator, the host:port of process 0'),
        ('many', "distributed.processes must be 'auto' or a number of at least 1, not 'many'"),
        ('0', "distributed.processes must be 'auto' or a number of at least 1, not '0'"),
    ],
)
def test_processes_that_cannot_meet_are_refused(count, message, joined):
    with pytest.raises(ValueError, match=message):
        processes.join(stage_config('cam', **{'distributed.processes': count}).distributed)
    assert not joined
