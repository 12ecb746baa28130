"""A run may be killed at any moment, and resumes as if it had not been."""

import multiprocessing
import random
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from configs_of import CONFIGS

from st2v_jax.cli.run import main

STEPS, KILLS = 150, 20
RUN = (
    'train',
    '--config',
    f'{CONFIGS / "autoencoder"}.py:tiny',
    f'--config.steps={STEPS}',
    '--config.log_every=5',
    '--config.model.vae.block_channels=(8,)',
)  # one level, of width 8

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::DeprecationWarning')  # from orbax


def saved(workdir):
    """Steps of the complete checkpoints."""
    return sorted(int(path.name) for path in Path(workdir, 'checkpoints').glob('*') if path.name.isdigit())


def final_state(workdir):
    assert saved(workdir)[-1] == STEPS
    return ocp.StandardCheckpointer().restore((workdir / 'checkpoints' / str(STEPS) / 'default').absolute())['state']


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_as_the_undisturbed_one(tmp_path, monkeypatch, unoptimised):
    monkeypatch.setenv('XLA_FLAGS', '')  # one device
    # Runs are forked from a process that has imported everything, because imports take most of the start.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(
        ['st2v_jax.training.loop', 'transformers.models.clip.tokenization_clip', 'tensorboardX']
    )

    def start(name, *options):
        life = context.Process(target=main, args=((*RUN, '--workdir', str(tmp_path / name), *options),))
        life.start()
        return life

    undisturbed = start('whole', f'--config.checkpoint_every={STEPS}')
    undisturbed.join()
    dice = random.Random(0)
    for number in range(KILLS):
        life, before = start('chain', '--config.checkpoint_every=3'), saved(tmp_path / 'chain')
        while number % 5 and saved(tmp_path / 'chain') == before:  # sometimes it is killed before it saves
            assert life.is_alive()
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.2) if number % 5 else dice.uniform(0, 3))  # during a step or while it saves
        life.kill()
        life.join()
        assert life.exitcode == -9
    last = start('chain', '--config.checkpoint_every=100')
    last.join()
    assert (undisturbed.exitcode, last.exitcode) == (0, 0)
    whole, chain = (final_state(tmp_path / name) for name in ('whole', 'chain'))
    assert jax.tree.structure(whole) == jax.tree.structure(chain)
    jax.tree.map(np.testing.assert_array_equal, whole, chain)
