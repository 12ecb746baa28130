"""The objective of CLIP."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training.stage import Stage

from st2v_jax.training import contrastive

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_it_learns_two_towers():
    stage = Stage('clip', {})
    losses = stage.run(60)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert set(stage.finish()[0]) == {'text', 'image'}


@pytest.mark.slow
def test_eight_devices_train_as_one():
    # the only stage in which examples depend on each other
    one, many = Stage('clip', {}), Stage('clip', {}, devices=8)
    np.testing.assert_allclose(one.run(1), many.run(1), rtol=1e-5)
    # gradients, from their first moments
    first, second = (optax.tree.get(stage.state.opt, 'mu') for stage in (one, many))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), first, second)


def test_pairs_of_one_group_are_not_each_others_mistakes():
    unit = jnp.eye(4)
    alone, accuracy = contrastive.contrast(unit, unit, 100.0, jnp.arange(4))
    assert float(alone) < 1e-3 and float(accuracy) == 1
    twins = unit.at[1].set(unit[0])
    mistaken, _ = contrastive.contrast(twins, twins, 100.0, jnp.arange(4))
    accepted, accuracy = contrastive.contrast(twins, twins, 100.0, jnp.array([0, 0, 2, 3]))
    assert float(accuracy) == 1
    np.testing.assert_allclose(mistaken, accepted, rtol=1e-4)  # both are log 2 on the twins: their entropy
    shifted, accuracy = contrastive.contrast(unit, jnp.roll(unit, 1, 0), 100.0, jnp.arange(4))
    assert float(shifted) > 10 and float(accuracy) == 0
