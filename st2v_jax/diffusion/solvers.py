"""One step per published algorithm, and the table of all of them.

All that a solver knows of the model is its clean prediction x0 at the present level.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from st2v_jax.diffusion.schedule import DiffusionConfig, Level, ddim_levels, dpm_levels, noise_levels, trailing_levels


def ddim_step(
    x: jax.Array, x0: jax.Array, now: Level, nxt: Level, eta: float = 0.0, noise: jax.Array | None = None
) -> jax.Array:
    """Song et al. 2021 (arXiv:2010.02502), eq. 12 and 16; eta = 0 is deterministic, eta = 1 ancestral.

    x, x0 and noise are [b, ...]; now.sigma > 0 and nxt.alpha > 0; now.alpha may be zero.
    """
    direction = (x - now.alpha * x0) / now.sigma
    if noise is None:
        return nxt.alpha * x0 + nxt.sigma * direction
    # eq. 16; without the clip, rounding could give the square root of a negative number
    spread = eta * nxt.sigma / now.sigma * jnp.sqrt(jnp.maximum(1 - (now.alpha / nxt.alpha) ** 2, 0))
    kept = jnp.sqrt(jnp.maximum(nxt.sigma**2 - spread**2, 0))
    return nxt.alpha * x0 + kept * direction + spread * noise


def dpmpp_2m_step(x: jax.Array, x0: jax.Array, x0_last: jax.Array, last: Level, now: Level, nxt: Level) -> jax.Array:
    """DPM-Solver++(2M), Lu et al. 2022 (arXiv:2211.01095), algorithm 2.

    x0_last was predicted at the level `last`. The step is of first order where that prediction is of no use: at the
    start (last = now), after pure noise (last.alpha = 0), and to the clean level (nxt.sigma = 0), where it gives x0.
    """
    h, d = _second_order(x0, x0_last, last, now, nxt)
    return nxt.sigma / now.sigma * x - nxt.alpha * jnp.expm1(-h) * d


def dpmpp_2m_sde_step(
    x: jax.Array, x0: jax.Array, x0_last: jax.Array, last: Level, now: Level, nxt: Level, noise: jax.Array
) -> jax.Array:
    """SDE-DPM-Solver++(2M) of the same paper, for the diffusion SDE; its noise [b, ...] is an argument.

    The step is of first order where `dpmpp_2m_step` is; to the clean level it gives x0, whatever the noise.
    """
    h, d = _second_order(x0, x0_last, last, now, nxt)
    kept = nxt.sigma / now.sigma * jnp.exp(-h) * x - nxt.alpha * jnp.expm1(-2 * h) * d
    return kept + nxt.sigma * jnp.sqrt(-jnp.expm1(-2 * h)) * noise


def _second_order(x0, x0_last, last, now, nxt):
    """Step length h in log(alpha / sigma), and the prediction extrapolated to the middle of the step."""
    h, h_last = half_log_snr(nxt) - half_log_snr(now), half_log_snr(now) - half_log_snr(last)
    second = jnp.isfinite(h) & jnp.isfinite(h_last) & (h_last > 0)
    extrapolated = x0 + h / (2 * jnp.where(second, h_last, 1)) * (x0 - x0_last)
    return h, jnp.where(second, extrapolated, x0)


def half_log_snr(level: Level) -> jax.Array:
    """lambda = log(alpha / sigma): minus infinity for pure noise, infinity for a clean sample."""
    return jnp.log(level.alpha) - jnp.log(level.sigma)


class Solver(NamedTuple):
    """All that the rest of the program knows of a solver.

    Attributes:
      levels: (table, steps) -> the levels that it steps through, unless the process has zero terminal SNR.
      step: (x, x0, x0_last, last, now, nxt, eta, noise) -> x at the next level; noise is None if it needs none.
      has_eta: whether `eta` says how random its steps are; otherwise eta must be 0.
      random: whether every step needs noise.
    """

    levels: Callable
    step: Callable
    has_eta: bool = False
    random: bool = False

    def needs_noise(self, eta: float) -> bool:
        """Whether steps with this eta add noise."""
        return self.random or eta > 0


SOLVERS = {
    'ddim': Solver(
        ddim_levels,
        lambda x, x0, x0_last, last, now, nxt, eta, noise: ddim_step(x, x0, now, nxt, eta, noise),
        has_eta=True,
    ),
    'dpmpp_2m': Solver(
        dpm_levels,
        lambda x, x0, x0_last, last, now, nxt, eta, noise: dpmpp_2m_step(x, x0, x0_last, last, now, nxt),
    ),
    'dpmpp_2m_sde': Solver(
        dpm_levels,
        lambda x, x0, x0_last, last, now, nxt, eta, noise: dpmpp_2m_sde_step(x, x0, x0_last, last, now, nxt, noise),
        random=True,
    ),
}


def solver_named(name: str, eta: float = 0.0) -> Solver:
    """The Solver of this name. Raises ValueError for an unknown name, and for an eta that the solver does not have."""
    if name not in SOLVERS:
        raise ValueError(f'solver is one of {tuple(SOLVERS)}, not {name!r}')
    if eta < 0 or (eta and not SOLVERS[name].has_eta):
        having = ' or '.join(name for name, solver in SOLVERS.items() if solver.has_eta)
        raise ValueError(f'eta is at least 0, and 0 unless the solver is {having}; got {eta} with {name}')
    return SOLVERS[name]


def sampling_levels(config: DiffusionConfig, solver: str, steps: int) -> Level:
    """The levels that a solver steps through on this process; leaves [steps + 1], noisiest first.

    Raises ValueError if the process does not have that many steps.
    """
    table = noise_levels(config)
    if config.zero_terminal_snr:
        return trailing_levels(table, steps)
    return solver_named(solver).levels(table, steps)
