"""GEGLU, the gate of the feed-forwards, with a gradient that keeps little."""

import jax
import jax.numpy as jnp
import numpy as np


@jax.custom_vjp
def geglu(x: jax.Array) -> jax.Array:
    """value * GELU(gate) of x = (value, gate), [..., 2 * c] -> [..., c], in float32 inside.

    The gradient needs x alone and computes the rest again: what it would keep is several times as large.
    """
    value, gate = _wide_halves(x)
    return (value * gate * _normal_cdf(gate)).astype(x.dtype)


def _geglu_backward(x, dy):
    value, gate = _wide_halves(x)
    cdf, density = _normal_cdf(gate), jnp.exp(-0.5 * jnp.square(gate)) * (2 * np.pi) ** -0.5
    dy = dy.astype(jnp.float32)
    dx = jnp.concatenate([dy * gate * cdf, dy * value * (cdf + gate * density)], axis=-1)
    return (dx.astype(x.dtype),)


def _wide_halves(x):
    """(value, gate) in float32; x is cut first, for TPU's compiler would write all of it out in float32."""
    return [half.astype(jnp.float32) for half in jnp.split(x, 2, axis=-1)]


def _normal_cdf(x):
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


geglu.defvjp(lambda x: (geglu(x), x), _geglu_backward)
