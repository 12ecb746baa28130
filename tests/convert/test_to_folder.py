"""A conversion takes little memory; tests/cli/test_convert.py checks what it writes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch_files as files

ROOT = Path(__file__).parents[2]

MEASURED = """
import resource, sys
from st2v_jax.convert.to_folder import carry_out, plan
from st2v_jax.convert.recognise import RELEASED
from st2v_jax.weights.layout import abstract
abstract(RELEASED, ['vae'])  # what is traced is no part of what a file takes
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
carry_out(plan([sys.argv[1]], sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.parametrize('container', ['zip', 'legacy'])
def test_memory_is_that_of_the_largest_tensor(container, tmp_path):
    """The released autoencoder in float32: 335 MB, of which the largest tensor takes 9."""
    shapes = json.loads((ROOT / 'tests' / 'manifests' / 'ms17b_vae.json').read_text())['tensors']
    noise = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
    arrays = {name: noise[: np.prod(shape, dtype=int)].reshape(shape) for name, shape in shapes.items()}
    file = files.checkpoint(container, tmp_path / 'vae.bin', arrays)
    command = [sys.executable, '-c', MEASURED, str(file), str(tmp_path / 'new')]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50e6 < file.stat().st_size / 6
    file.unlink()
