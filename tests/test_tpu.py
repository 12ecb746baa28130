"""Programs fit a TPU v5e, by TPU's own compiler, which needs no TPU: libtpu, as the extra `tpu` installs it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
GIB = 2**30
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason="needs libtpu: pip install -e '.[tpu]'"),
]


@pytest.fixture(scope='module')
def compiled():
    """{program: what it takes}, see programs_for_tpu.py."""
    environment = os.environ | {
        'PYTHONPATH': os.pathsep.join(map(str, [TESTS.parent, TESTS, TESTS.parent / 'benchmarks', *sys.path])),
        'JAX_PLATFORMS': 'cpu',
        # Otherwise it asks the network which machine this is, and waits for an answer.
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    }
    command = [sys.executable, str(TESTS / 'programs_for_tpu.py')]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_tpu_runs_the_refiners_largest_attention_in_its_memory(compiled):
    found = compiled['spatial_transformer']
    assert found['temporary'] < 4 * GIB, 'the scores alone are 93 GiB'
    assert found['kernels'] == 1


def test_eight_chips_of_a_tpu_share_a_training_step(compiled):
    found = compiled['training_step']
    assert found['chips'] == 8 and found['sums'] > 0
    assert found['temporary'] < GIB
