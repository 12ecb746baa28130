"""The state that one training step passes to the next, and the split into trained and frozen parameters.

Only trained parameters have an optimizer state and an average, so frozen ones need no more memory than themselves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from st2v_jax import trees


class TrainState(NamedTuple):
    """The state of training, a plain tree; arrays are float32.

    Attributes:
      step: number of steps taken, int32.
      params: the trained parameters, a nested dict.
      ema: their exponential moving average, which is saved at the end.
      opt: state of the optimizer.
    """

    step: jax.Array
    params: Any
    ema: Any
    opt: Any


def create(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step. Its arrays are copies: a step donates the state, so they must not be shared."""
    params = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)
    return TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def split(params: Any, trained: Callable[[str], bool]) -> tuple[Any, Any]:
    """Splits parameters into trained and frozen ones, two nested dicts.

    trained: whether the parameter with a path such as 'unet/decoder/conv_out/kernel' is trained; ValueError if none is.
    """
    chosen, rest = trees.split(params, trained)
    if not chosen:
        raise ValueError('no parameter is trained: the filter of trained parameters matches none')
    return chosen, rest
