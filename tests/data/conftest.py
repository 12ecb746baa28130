"""Scenes shared by the tests of the world."""

import jax
import numpy as np
import pytest

from st2v_jax.data import world


@pytest.fixture(scope='session')
def many():
    """4000 scenes of one seed as a Scene of numpy arrays with a leading axis."""
    draw = jax.jit(jax.vmap(lambda index: world.scene(0, index)))
    return jax.device_get(draw(np.arange(4000, dtype=np.int32)))


@pytest.fixture(scope='session')
def first_where(many):
    """first_where(mask) -> the first of the many scenes where the mask is true, with changes by keyword."""

    def pick(mask, **changes):
        found = jax.tree.map(lambda leaf: leaf[np.flatnonzero(mask)[0]], many)
        return found._replace(**changes)

    return pick
