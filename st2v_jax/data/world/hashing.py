"""The randomness of the world: hashes of integers, the same on every device and under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np


def mix(state: jax.Array, value: jax.Array) -> jax.Array:
    """Mixes an integer (array) into a uint32 hash (array); broadcasts."""
    h = (jnp.asarray(state, jnp.uint32) ^ jnp.asarray(value).astype(jnp.uint32)) * np.uint32(0x9E3779B1)
    h = (h ^ (h >> 15)) * np.uint32(0x85EBCA77)
    return h ^ (h >> 13)


def unit(h: jax.Array) -> jax.Array:
    """The exact float32 number in [0, 1) for a uint32 hash."""
    return (h >> 8).astype(jnp.float32) * np.float32(2**-24)


class Draws:
    """A sequence of independent random numbers from one hash; the n-th call always gives the same number."""

    def __init__(self, state):
        self.state, self.drawn = state, 0

    def raw(self) -> jax.Array:
        """The next uint32 hash."""
        self.drawn += 1
        return mix(mix(self.state, self.drawn), 0x51ED27)

    def uniform(self, low: jax.Array | float, high: jax.Array | float) -> jax.Array:
        """A number in [low, high)."""
        return low + (high - low) * unit(self.raw())

    def integer(self, low: int, high: jax.Array | int) -> jax.Array:
        """An integer in low..high-1; high may be traced."""
        span = jnp.asarray(high - low).astype(jnp.uint32)
        return low + ((self.raw() >> 4) % span).astype(jnp.int32)
