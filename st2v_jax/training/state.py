"""What one training step hands to the next, and the split into trained and frozen parameters.

Only trained parameters have an optimizer state and an average: a frozen one costs its own memory and no more.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from st2v_jax import trees


class TrainState(NamedTuple):
    """The carry of training; a plain tree, float32.

    Attributes:
      step: number of steps taken, int32.
      params: the trained parameters, a nested dict.
      ema: their exponential moving average: what is saved in the end.
      opt: optimizer state.
    """

    step: jax.Array
    params: Any
    ema: Any
    opt: Any


def create(params, optimizer) -> TrainState:
    """The state before the first step. Copies, because a step donates it and its leaves must not be shared."""
    params = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)
    return TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def split(params, trained):
    """-> (trained, frozen), two nested dicts without common leaves.

    trained: a function of a path such as 'unet/decoder/conv_out/kernel'. Raises ValueError where it picks nothing.
    """
    chosen, rest = trees.split(params, trained)
    if not chosen:
        raise ValueError('the filter of trained parameters picks none of them')
    return chosen, rest
