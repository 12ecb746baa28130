"""Two processes train as one does."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from configs_of import CONFIGS, stage_config

from st2v_jax.open_model import load_weights
from st2v_jax.training import processes

RUN = ('train.py', '--config', 'configs/autoencoder.py:tiny', '--config.steps=2', '--config.log_every=1',
       '--config.checkpoint_every=1', '--config.mesh.data=1', '--config.model.vae.block_channels=(8,)')


def start(workdir, *options):
    """train.py on one device of its own."""
    flags = os.environ['XLA_FLAGS'].replace('--xla_force_host_platform_device_count=8', '').strip()
    return subprocess.Popen([sys.executable, *RUN, '--workdir', str(workdir), *options], cwd=CONFIGS.parent,
                            env={**os.environ, 'XLA_FLAGS': flags}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def finish(*runs):
    for run, (_, err) in [(run, run.communicate(timeout=300)) for run in runs]:
        assert run.returncode == 0, err[-3000:]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, unoptimised):
    finish(start(tmp_path / 'one'))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    together = ('--config.distributed.processes=2', f'--config.distributed.coordinator=127.0.0.1:{port}')
    # parameters and batches are split over both, so that checkpoints and weights are gathered from both
    finish(*(start(tmp_path / 'two', *together, f'--config.distributed.process={n}', '--config.mesh.fsdp=2')
             for n in range(2)))
    rows = [[json.loads(row) for row in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()]
            for name in ('one', 'two')]
    for one, two in zip(*rows, strict=True):
        assert one['step'] == two['step']
        np.testing.assert_allclose([one['loss'], one['grad_norm']], [two['loss'], two['grad_norm']], rtol=1e-5)
    # All parameters together, in 16 bits: the biases of keys have no gradient, and go where rounding says.
    load = lambda name: jax.tree.leaves(load_weights(tmp_path / name / 'weights', ['vae'])[1])
    one, two = (np.concatenate([leaf.ravel() for leaf in load(name)]) for name in ('one', 'two'))
    assert np.linalg.norm(one - two) < 1e-3 * np.linalg.norm(one)
    steps = lambda name: sorted(path.name for path in (tmp_path / name / 'checkpoints').iterdir())
    assert steps('one') == steps('two') == ['1', '2']


def test_several_processes_must_know_where_to_meet():
    config = stage_config('cam', **{'distributed.processes': '2'}).distributed
    with pytest.raises(ValueError, match='2 processes need distributed.coordinator, the host:port of process 0'):
        processes.join(config)
