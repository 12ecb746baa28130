"""Group norm and its gradient are those of the formula, whatever the axes, the type and the activation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx

from st2v_jax.models.layers import FRAME, VIDEO, GroupNorm, per_branch


def formula(x, scale, bias, groups, epsilon, axes, silu):
    """Mean and variance over a group's channels and the axes, one after the other."""
    wide = rearrange(x.astype(jnp.float32), '... (g c) -> ... g c', g=groups)
    over = (*(axis - 1 for axis in axes), -1)
    centred = wide - wide.mean(over, keepdims=True)
    unit = centred / jnp.sqrt(jnp.square(centred).mean(over, keepdims=True) + epsilon)
    y = rearrange(unit, '... g c -> ... (g c)') * scale + bias
    return nnx.silu(y) if silu else y


@pytest.mark.parametrize('silu', [False, True])
@pytest.mark.parametrize(
    'shape, groups, axes',
    [((2, 3, 4, 5, 6), 3, FRAME), ((2, 3, 4, 5, 6), 2, VIDEO), ((3, 4, 5, 8), 8, FRAME), ((1, 1, 1, 1, 4), 1, VIDEO)],
)
def test_group_norm_and_its_gradients_are_those_of_the_formula(shape, groups, axes, silu):
    random = np.random.default_rng(0)
    x, scale, bias = (
        jnp.asarray(1 + 2 * random.standard_normal(of), jnp.float32) for of in (shape, shape[-1:], shape[-1:])
    )
    module = GroupNorm(shape[-1], groups, epsilon=1e-5, axes=axes)
    graph, _ = nnx.split(module)

    def ours(x, scale, bias):
        return nnx.merge(graph, nnx.State({'scale': nnx.Param(scale), 'bias': nnx.Param(bias)}))(x, silu=silu)

    theirs = lambda *given: formula(*given, groups, 1e-5, axes, silu)
    loss = lambda of: lambda *given: jnp.sum(jnp.sin(3 * of(*given)))
    np.testing.assert_allclose(ours(x, scale, bias), theirs(x, scale, bias), rtol=1e-4, atol=1e-4)
    found, right = (jax.grad(loss(of), (0, 1, 2))(x, scale, bias) for of in (ours, theirs))
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_gradients_in_half_precision_have_its_type_and_sum_in_float32():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 64, 64, 4)), jnp.bfloat16)
    module = GroupNorm(4, 2, epsilon=1e-5, dtype=jnp.bfloat16)
    graph, params = nnx.split(module)
    loss = lambda params, x: jnp.sum(jnp.square(nnx.merge(graph, params)(x, silu=True).astype(jnp.float32)))
    (of_params, of_x), (right, _) = (jax.grad(loss, (0, 1))(params, x.astype(t)) for t in (jnp.bfloat16, jnp.float32))
    assert of_x.dtype == jnp.bfloat16
    for one, other in zip(jax.tree.leaves(of_params), jax.tree.leaves(right), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=3e-3)


def test_branches_that_a_value_lacks_have_that_of_its_last_one():
    x = jnp.arange(4)  # two videos in two branches
    assert per_branch(x, 4) is x
    assert per_branch(x, 8, videos=2).tolist() == [0, 1, 2, 3, 2, 3, 2, 3]
    assert per_branch(x[:2], 6).tolist() == [0, 1, 0, 1, 0, 1]
