"""One training step: draw a batch, compute the gradient, update the parameters and their average."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jax.sharding import Mesh
from ml_collections import ConfigDict

from st2v_jax import cost, sharding, trees
from st2v_jax.kernels.choice import choosing
from st2v_jax.training import state as states
from st2v_jax.training.objective import Objective


def learning_rate(progress: jax.Array, *, peak: float, warmup: float, decay: str) -> jax.Array:
    """The learning rate at `progress`, the fraction of the run that is done, in [0, 1].

    It rises linearly over the fraction `warmup`, then stays ('constant') or falls to zero at the end ('linear',
    'cosine'). It depends on a fraction and not on a step, because a run may be limited by steps or by time.
    """
    progress = jnp.clip(progress, 0.0, 1.0)
    rest = jnp.clip((progress - warmup) / (1 - warmup), 0.0, 1.0)
    shapes = {
        'constant': jnp.ones_like(rest),
        'linear': 1 - rest,
        'cosine': 0.5 * (1 + jnp.cos(jnp.pi * rest)),
    }
    if decay not in shapes:
        raise ValueError(f'decay is one of {", ".join(sorted(shapes))}, not {decay!r}')
    rise = jnp.minimum(1.0, progress / warmup) if warmup else 1.0
    return peak * rise * shapes[decay]


def make_optimizer(*, clip: float, b1: float, b2: float, weight_decay: float) -> optax.GradientTransformation:
    """AdamW without the learning rate, which the step applies. Only matrices and kernels decay."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.scale_by_adam(b1=b1, b2=b2),
        optax.add_decayed_weights(weight_decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)),
    )


def gradient(loss: Callable, params: Any, frozen: Any, batch: Any, parts: int = 1) -> tuple[tuple, Any]:
    """The loss of a batch and its gradient with respect to the trained params: ((loss, dict of scalars), gradient).

    With several `parts`, both are means over the parts of the batch, computed one after the other in the memory of one.
    """
    of = jax.value_and_grad(lambda params, batch: loss(trees.join(params, frozen), batch), has_aux=True)
    if parts == 1:
        return of(params, batch)
    # Each part takes rows from all over the batch, so that its share for each device is already there.
    batch = jax.tree.map(partial(rearrange, pattern='(r n) ... -> n r ...', n=parts), batch)
    shapes = jax.eval_shape(of, params, jax.tree.map(lambda leaf: leaf[0], batch))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, of(params, part)), None), nothing, batch)
    return jax.tree.map(lambda leaf: leaf / parts, total)


def check_parts(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Raises ValueError if a batch cannot be cut into equal parts that are split evenly over the mesh."""
    if parts < 1 or batch_size % parts:
        raise ValueError(f'a batch of {batch_size} cannot be cut into {parts} equal parts (accumulation)')
    sharding.check_rows(batch_size // parts, mesh)


def needed_flops(objective: Objective, params: Any, frozen: Any, data: Any) -> int:
    """Operations that the loss and its gradient need in a step on `data`; parameters may be shapes.

    The gradients of frozen weights are not needed, and what rematerialisation computes twice counts once.
    """
    batch = jax.eval_shape(objective.draw, data, jax.random.key(0))
    with choosing('xla'):  # products within our kernels are not seen
        return cost.flops(partial(gradient, objective.direct), params, frozen, batch)


def make_step(
    draw: Callable,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    *,
    rate: Callable,
    ema_decay: float,
    accumulation: int = 1,
) -> Callable:
    """Makes the training step, a pure function (state, frozen, data, progress, key) -> (state, metrics).

    The key of the step is that of the run, the same at every step; batch n is a function of (key, n) alone.

    Args:
      draw: of an Objective.
      loss: of an Objective.
      optimizer: without its learning rate.
      rate: progress -> learning rate.
      ema_decay: of the average of the parameters.
      accumulation: number of parts of the batch whose gradients are computed one after the other.
    """

    def step(state, frozen, data, progress, key):
        batch = draw(data, jax.random.fold_in(key, state.step))
        (value, aux), grads = gradient(loss, state.params, frozen, batch, accumulation)
        norm = optax.tree.norm(grads)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        now = rate(progress)
        params = jax.tree.map(lambda p, u: p - now * u, state.params, updates)
        # The average forgets faster at first, so that the random start does not stay in it.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda average, p: decay * average + (1 - decay) * p, state.ema, params)
        moved = states.TrainState(state.step + 1, params, ema, opt)
        # A step is not taken if its loss or gradient is not finite: the state before it can be examined and saved.
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        moved = jax.tree.map(partial(jnp.where, finite), moved, state)
        return moved, {'loss': value, 'grad_norm': norm, 'learning_rate': now, **aux}

    return step


def compiled_step(
    config: ConfigDict,
    draw: Callable,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    places: Any,
    place_frozen: Any,
) -> Callable:
    """The jitted step of a run, which donates its state.

    Args:
      config: of the run.
      draw: of an Objective.
      loss: of an Objective.
      optimizer: without its learning rate.
      mesh: of the devices; key, progress and metrics are on all of them.
      places: shardings of the state.
      place_frozen: shardings of the frozen parameters.
    """
    everywhere = sharding.replicated(mesh)
    return jax.jit(
        make_step(
            draw,
            loss,
            optimizer,
            rate=partial(learning_rate, **config.schedule),
            ema_decay=config.ema_decay,
            accumulation=config.accumulation,
        ),
        donate_argnames='state',
        compiler_options=config.compiler_options.to_dict(),
        in_shardings=(places, place_frozen, None, everywhere, everywhere),
        out_shardings=(places, everywhere),
    )
