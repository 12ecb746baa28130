"""The scan that drives a solver through the noise levels."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from st2v_jax.diffusion.schedule import Level
from st2v_jax.diffusion.solvers import solver_named

Inputs = tuple[jax.Array, Level, Level]  # of a step: (its number, the level it stands at, the level it goes to)


class Trajectory(NamedTuple):
    """Where sampling stands: the noisy x, and the clean prediction made one step ago with the level it was made at."""

    x: jax.Array
    x0: jax.Array
    level: Level


def begin(x: jax.Array, levels: Level) -> Trajectory:
    """The trajectory before its first step: x [b,...] is noise at levels[0], and nothing has been predicted yet."""
    return Trajectory(x, jnp.zeros_like(x), jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), levels))


def steps(levels: Level) -> Inputs:
    """What each step is given: (step number, level it stands at, level it goes to); leaves [n] from leaves [n + 1]."""
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
    """The trajectory after one step with the clean prediction x0 of its x: what a step does besides the prediction.

    inputs: (step, now, next) of `steps`. noise(step) -> array like x; it is asked only where the solver needs it.
    """
    chosen = _checked(solver, eta, noise)
    i, now, nxt = inputs
    x, x0_last, last = trajectory
    fresh = noise(i) if chosen.needs_noise(eta) else None
    return Trajectory(chosen.step(x, x0, x0_last, last, now, nxt, eta, fresh), x0, now)


def stepper(denoise: Callable, *, solver: str = 'ddim', eta: float = 0.0, noise: Callable | None = None) -> Callable:
    """One step as a function (trajectory, (step, now, next)) -> trajectory.

    denoise(x, level) -> x0; the rest is as for `advance`. Raises ValueError where solver, eta and noise do not fit.
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
    """Takes x [b,...], noise at levels[0], to a sample at levels[-1].

    levels has leaves [n + 1], noisiest first; see `stepper` for the rest. Only the end is returned: stacking every step
    of a video would cost every step's memory.
    """
    step = stepper(denoise, solver=solver, eta=eta, noise=noise)
    return jax.lax.scan(lambda carry, inputs: (step(carry, inputs), None), begin(x, levels), steps(levels))[0].x


def _checked(solver, eta, noise):
    chosen = solver_named(solver, eta)
    if chosen.needs_noise(eta) and noise is None:
        raise ValueError(f'solver {solver} with eta={eta} needs noise')
    return chosen
