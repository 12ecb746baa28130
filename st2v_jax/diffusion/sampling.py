"""The scan that drives a solver through the noise levels."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from st2v_jax.diffusion.schedule import Level
from st2v_jax.diffusion.solvers import solver_named

Inputs = tuple[jax.Array, Level, Level]  # of a step: (its number, the level before it, the level after it)


class Trajectory(NamedTuple):
    """The state of sampling between two steps.

    Attributes:
      x: [b, ...] the noisy sample.
      x0: [b, ...] the clean prediction of the last step.
      level: the level at which x0 was predicted.
    """

    x: jax.Array
    x0: jax.Array
    level: Level


def begin(x: jax.Array, levels: Level) -> Trajectory:
    """The trajectory before its first step: x [b, ...] is noise at levels[0], and nothing has been predicted yet."""
    return Trajectory(x, jnp.zeros_like(x), jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), levels))


def steps(levels: Level) -> Inputs:
    """The inputs of all n steps, stacked in leaves [n]; levels has leaves [n + 1]."""
    now, nxt = (
        jax.tree.map(lambda leaf, part=part: jnp.asarray(leaf[part]), levels)
        for part in (slice(None, -1), slice(1, None))
    )
    return jnp.arange(len(now.alpha)), now, nxt


def advance(
    trajectory: Trajectory,
    x0: jax.Array,
    inputs: Inputs,
    *,
    solver: str = 'ddim',
    eta: float = 0.0,
    noise: Callable | None = None,
) -> Trajectory:
    """The trajectory after one step, given the clean prediction x0 of its x.

    Args:
      trajectory: before the step.
      x0: [b, ...].
      inputs: (step, now, next) from `steps`.
      solver, eta: as for `solver_named`.
      noise: (step) -> array like x; it is called only if the solver needs noise.
    """
    chosen = _checked(solver, eta, noise)
    i, now, nxt = inputs
    x, x0_last, last = trajectory
    fresh = noise(i) if chosen.needs_noise(eta) else None
    return Trajectory(chosen.step(x, x0, x0_last, last, now, nxt, eta, fresh), x0, now)


def stepper(denoise: Callable, *, solver: str = 'ddim', eta: float = 0.0, noise: Callable | None = None) -> Callable:
    """One step as a function (trajectory, (step, now, next)) -> trajectory.

    denoise(x, level) -> x0; the rest is as for `advance`. Raises ValueError if the solver does not have this eta, or
    needs noise and has none.
    """
    _checked(solver, eta, noise)

    def step(trajectory, inputs):
        x0 = denoise(trajectory.x, inputs[1])
        return advance(trajectory, x0, inputs, solver=solver, eta=eta, noise=noise)

    return step


def sample(
    denoise: Callable,
    x: jax.Array,
    levels: Level,
    *,
    solver: str = 'ddim',
    eta: float = 0.0,
    noise: Callable | None = None,
) -> jax.Array:
    """Takes x [b, ...], noise at levels[0], to a sample at levels[-1].

    levels has leaves [n + 1], noisiest first; see `stepper` for the rest. Only the end is returned, because keeping
    every step of a video would take the memory of all of them.
    """
    step = stepper(denoise, solver=solver, eta=eta, noise=noise)
    return jax.lax.scan(lambda carry, inputs: (step(carry, inputs), None), begin(x, levels), steps(levels))[0].x


def _checked(solver, eta, noise):
    chosen = solver_named(solver, eta)
    if chosen.needs_noise(eta) and noise is None:
        raise ValueError(f'solver {solver} with eta={eta} needs noise')
    return chosen
