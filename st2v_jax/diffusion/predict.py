"""What a network predicts. A network here is a function (x [b, ...], t [b]) -> prediction [b, ...]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from st2v_jax.diffusion.schedule import PREDICTIONS, Level


def _wide(value, x):
    """A level's scalar, or one number per example [b], shaped to multiply x [b, ...]."""
    value = jnp.asarray(value, x.dtype)
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim)) if value.ndim else value


def add_noise(x0: jax.Array, noise: jax.Array, level: Level) -> jax.Array:
    """q(x_t | x_0): alpha x0 + sigma noise; the level's leaves are scalars or [b]."""
    return _wide(level.alpha, x0) * x0 + _wide(level.sigma, x0) * noise


def v_from(x0: jax.Array, noise: jax.Array, level: Level) -> jax.Array:
    """v = alpha noise - sigma x0 (Salimans & Ho 2022, arXiv:2202.00512, section 4)."""
    return _wide(level.alpha, x0) * noise - _wide(level.sigma, x0) * x0


def noise_from_x0(x: jax.Array, x0: jax.Array, level: Level) -> jax.Array:
    """The noise that x must contain if x0 is its clean part; sigma > 0."""
    return (x - _wide(level.alpha, x) * x0) / _wide(level.sigma, x)


def noise_from_v(x: jax.Array, v: jax.Array, level: Level) -> jax.Array:
    """The noise of x given v."""
    return _wide(level.sigma, x) * x + _wide(level.alpha, x) * v


def x0_from_noise(x: jax.Array, noise: jax.Array, level: Level) -> jax.Array:
    """Clean part of x given its noise; alpha > 0."""
    return (x - _wide(level.sigma, x) * noise) / _wide(level.alpha, x)


def x0_from_v(x: jax.Array, v: jax.Array, level: Level) -> jax.Array:
    """Clean part of x given v; exact also where alpha = 0 and x is nothing but noise."""
    return _wide(level.alpha, x) * x - _wide(level.sigma, x) * v


def denoiser(network: Callable, prediction: str) -> Callable:
    """Turns a network that predicts 'epsilon' or 'v' into denoise(x, level) -> x0, which is all that solvers see."""
    if prediction not in PREDICTIONS:
        raise ValueError(f'prediction is one of {PREDICTIONS}, not {prediction!r}')
    to_x0 = x0_from_noise if prediction == 'epsilon' else x0_from_v

    def denoise(x, level):
        t = jnp.broadcast_to(jnp.asarray(level.t), x.shape[:1])
        return to_x0(x, network(x, t), level)

    return denoise


def at_entries(denoise: Callable, table: Level) -> Callable:
    """`denoise` that reads x at the table's entry level.t, also if the level lies between entries, as the release does.

    table has float64 leaves [steps] and level.t is an integer. The solver itself steps from the level between entries.
    """

    def at_entry(x, level):
        return denoise(x, Level(*(jnp.asarray(leaf)[level.t] for leaf in table)))

    return at_entry
