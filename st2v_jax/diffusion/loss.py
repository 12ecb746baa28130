"""Training: the target, the loss, and the dropout of conditions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from st2v_jax.diffusion.predict import add_noise, v_from
from st2v_jax.diffusion.schedule import Level


def diffusion_loss(
    network: Callable, x0: jax.Array, noise: jax.Array, t: jax.Array, table: Level, prediction: str
) -> jax.Array:
    """E || target - network(x_t, t) ||^2 as a mean over all elements, in float32.

    Args:
      network: (x_t [b, ...], t [b]) -> prediction [b, ...].
      x0, noise: [b, ...].
      t: [b] integer step indices into `table`.
      table: as from `noise_levels`.
      prediction: the target is the noise ('epsilon') or v = alpha noise - sigma x0 ('v').
    """
    level = Level(*(jnp.asarray(leaf)[t] for leaf in table))
    target = {'epsilon': lambda: noise, 'v': lambda: v_from(x0, noise, level)}[prediction]()
    predicted = network(add_noise(x0, noise, level), t)
    return jnp.mean(jnp.square(predicted.astype(jnp.float32) - target.astype(jnp.float32)))


def sdedit_noise(
    x0: jax.Array, source: jax.Array, noise: jax.Array, t: jax.Array, table: Level, start: jax.Array
) -> jax.Array:
    """The noise that x0 seems to have at entries t [b] <= start [b], when sampling begins with a noised `source`.

    SDEdit starts from alpha source + sigma noise at entry `start`, so besides noise x contains the error source - x0.
    The stochastic solver (`dpmpp_2m_sde_step`, given the right x0) forgets this error in proportion to the squared
    noise-to-signal ratio: at entry t

        x_t = alpha_t (x0 + r_t (source - x0)) + sigma_t noise,    r_t = (alpha_start sigma_t / sigma_start alpha_t)^2,

    which is x0 with the noise returned here. x0, source and noise are [b, ...]; if source is x0, noise is returned.
    """
    sigma, alpha = (jnp.asarray(leaf, x0.dtype) for leaf in (table.sigma, table.alpha))
    remains = sigma[t] / alpha[t] * jnp.square(alpha[start] / sigma[start])
    return noise + jax.vmap(jnp.multiply)(remains, source - x0)


def drop_conditions(
    key: jax.Array, batch: int, *, text: float = 0.05, anchor: float = 0.05, both: float = 0.05
) -> tuple[jax.Array, jax.Array]:
    """Which examples lose which condition: (drop_text [batch], drop_anchor [batch]), booleans.

    There are three exclusive events, text alone, anchor alone and both, so that training sees every branch of the
    guidance (eq. 12).
    """
    if min(text, anchor, both) < 0 or text + anchor + both > 1:
        raise ValueError(f'dropout shares are at least 0 and at most 1 together, not {text}, {anchor}, {both}')
    u = jax.random.uniform(key, (batch,))
    drop_text = u < text + both
    drop_anchor = (u >= text) & (u < text + both + anchor)
    return drop_text, drop_anchor
