"""An enhancement may be killed at any moment, and goes on as if it had not been.

ST2V_KILLS=50 python -m pytest -n 0 -s -m slow tests/refinement/test_killed.py kills it more often, with a log.
"""

import multiprocessing
import os
import random
import time

import enhancing
import numpy as np
import pytest

from st2v_jax.refinement.levels import JOURNAL
from st2v_jax.storage.safetensors import SafeTensors

KILLS = int(os.environ.get('ST2V_KILLS', 8))
STEPS = KILLS // 2 + 1
SPANS = 8  # of a step: 15 chunks of 60 frames


def position(folder):
    """(steps done, chunk) as the journal says; None before there is one."""
    journal = folder / JOURNAL
    return tuple(SafeTensors(journal)['at'][:2].tolist()) if journal.exists() else None


@pytest.mark.slow
def test_killed_again_and_again_it_gives_the_frames_of_the_undisturbed_one(
    tiny_folder, tmp_path, monkeypatch, unoptimised
):
    monkeypatch.setenv('XLA_FLAGS', '')  # one device
    # Runs are forked from a process that has imported everything, because imports take most of the start.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['st2v_jax.refinement.enhancer', 'enhancing'])

    def start(name):
        life = context.Process(target=enhancing.enhance, args=(tiny_folder, tmp_path / name, STEPS))
        life.start()
        return life

    undisturbed = start('whole')
    undisturbed.join()
    dice, chain, log = random.Random(KILLS), tmp_path / 'chain', []
    for number in range(KILLS):
        spans = more = dice.randrange(4) if number else 0
        life = start('chain')
        while more:
            before = position(chain)
            while position(chain) == before:
                assert life.is_alive(), f'it ended by itself, with {life.exitcode}'
                time.sleep(0.001)
            more -= 1
        # during a span or while it is written; without more spans, while it starts or encodes
        time.sleep(dice.uniform(0, 0.03 if spans else 1.5))
        life.kill()
        life.join()
        assert life.exitcode == -9
        log.append(position(chain))
        print(f'killed at {log[-1]}', flush=True)
    assert log == sorted(log, key=lambda at: at or (-1, 0)), 'nothing that was complete is lost'
    last = start('chain')
    last.join()
    assert (undisturbed.exitcode, last.exitcode) == (0, 0)
    whole, chain = ((tmp_path / f'{name}.spans').stat().st_size for name in ('whole', 'chain'))
    assert whole == STEPS * SPANS and chain <= whole + KILLS, 'one span is lost at most'
    np.testing.assert_array_equal(np.load(tmp_path / 'chain.npy'), np.load(tmp_path / 'whole.npy'))
