"""The scan that drives a solver through the noise levels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from st2v_jax.diffusion.schedule import Level
from st2v_jax.diffusion.solvers import ddim_step, dpmpp_2m_step

SOLVERS = ('ddim', 'dpmpp_2m')


class Trajectory(NamedTuple):
    """Where sampling stands: the noisy x, and the clean prediction made one step ago with the level it was made at."""

    x: Any
    x0: Any
    level: Level


def begin(x, levels) -> Trajectory:
    """The trajectory before its first step: x [b,...] is noise at levels[0], and nothing has been predicted yet."""
    return Trajectory(x, jnp.zeros_like(x), jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), levels))


def steps(levels):
    """What each step is given: (step number, level it stands at, level it goes to); leaves [n] from leaves [n + 1]."""
    now, nxt = (jax.tree.map(lambda leaf, part=part: jnp.asarray(leaf[part]), levels)
                for part in (slice(None, -1), slice(1, None)))
    return jnp.arange(len(now.alpha)), now, nxt


def stepper(denoise, *, solver='ddim', eta=0.0, noise=None):
    """One step as a function (trajectory, (step, now, next)) -> trajectory.

    denoise(x, level) -> x0. noise(step) -> array like x is what a stochastic step adds; it is asked only if eta > 0.
    """
    if solver not in SOLVERS:
        raise ValueError(f'solver is one of {SOLVERS}, not {solver!r}')
    if eta and solver != 'ddim':
        raise ValueError(f'eta={eta} adds noise in every step, which {solver} does not; use solver ddim or eta 0')
    if eta and noise is None:
        raise ValueError(f'eta={eta} needs noise')

    def step(trajectory, inputs):
        i, now, nxt = inputs
        x, x0_last, last = trajectory
        x0 = denoise(x, now)
        if solver == 'ddim':
            x = ddim_step(x, x0, now, nxt, eta, noise(i) if eta else None)
        else:
            x = dpmpp_2m_step(x, x0, x0_last, last, now, nxt)
        return Trajectory(x, x0, now)

    return step


def sample(denoise, x, levels, *, solver='ddim', eta=0.0, noise=None):
    """Takes x [b,...], noise at levels[0], to a sample at levels[-1].

    levels has leaves [n + 1], noisiest first; see `stepper` for the rest. Only the end is returned: stacking every step
    of a video would cost every step's memory.
    """
    step = stepper(denoise, solver=solver, eta=eta, noise=noise)
    return jax.lax.scan(lambda carry, inputs: (step(carry, inputs), None), begin(x, levels), steps(levels))[0].x
