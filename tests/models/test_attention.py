"""The layers of attention: GEGLU is the formula, and so is its gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from st2v_jax.kernels.geglu import geglu


def formula(x):
    value, gate = jnp.split(x, 2, axis=-1)
    return value * nnx.gelu(gate, approximate=False)


@pytest.mark.parametrize('spread', [0.1, 1.0, 10.0])
def test_geglu_and_its_gradient_are_those_of_the_formula(spread):
    x = jnp.asarray(spread * np.random.default_rng(0).standard_normal((7, 12)), jnp.float32)
    loss = lambda of: lambda x: jnp.sum(jnp.sin(of(x)))
    np.testing.assert_allclose(geglu(x), formula(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(loss(geglu))(x), jax.grad(loss(formula))(x), rtol=1e-4, atol=2e-6)


def test_geglu_in_half_precision_is_that_of_float32_rounded_once():
    x = jnp.asarray(3 * np.random.default_rng(0).standard_normal((64, 32)), jnp.bfloat16)
    right = geglu(x.astype(jnp.float32))
    chex.assert_trees_all_equal(geglu(x), right.astype(jnp.bfloat16))
    summed = lambda x: jnp.sum(geglu(x).astype(jnp.float32))
    right = jax.grad(summed)(x.astype(jnp.float32))
    chex.assert_trees_all_equal(jax.grad(summed)(x), right.astype(jnp.bfloat16))
