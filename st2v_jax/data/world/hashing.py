"""Randomness of the world: hashes of integers, hence the same on every device and under every transformation."""

import jax.numpy as jnp
import numpy as np


def mix(state, value):
    """Stirs an integer (array) into a uint32 hash (array); broadcasts."""
    h = (jnp.asarray(state, jnp.uint32) ^ jnp.asarray(value).astype(jnp.uint32)) * np.uint32(0x9E3779B1)
    h = (h ^ (h >> 15)) * np.uint32(0x85EBCA77)
    return h ^ (h >> 13)


def unit(h):
    """uint32 hash -> float32 in [0, 1), exact."""
    return (h >> 8).astype(jnp.float32) * np.float32(2**-24)


class Draws:
    """A sequence of independent draws from one hash; the n-th call always draws the same."""

    def __init__(self, state):
        self.state, self.drawn = state, 0

    def raw(self):
        self.drawn += 1
        return mix(mix(self.state, self.drawn), 0x51ED27)

    def uniform(self, low, high):
        return low + (high - low) * unit(self.raw())

    def integer(self, low, high):
        """In low..high-1; high may be traced."""
        span = jnp.asarray(high - low).astype(jnp.uint32)
        return low + ((self.raw() >> 4) % span).astype(jnp.int32)
