"""One training step: a batch is drawn, its gradient taken, the parameters and their average moved."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from st2v_jax import cost, sharding, trees
from st2v_jax.training import state as states


def learning_rate(progress, *, peak, warmup, decay):
    """The rate at `progress`, the fraction of the run that is done, in [0, 1].

    It rises linearly over the first `warmup` of the run, then stays ('constant') or falls to zero at the end ('linear',
    'cosine'). A fraction, and not a step, because a run may be limited by steps or by time.
    """
    progress = jnp.clip(progress, 0.0, 1.0)
    rest = jnp.clip((progress - warmup) / (1 - warmup), 0.0, 1.0)
    shapes = {
        'constant': jnp.ones_like(rest),
        'linear': 1 - rest,
        'cosine': 0.5 * (1 + jnp.cos(jnp.pi * rest)),
    }
    if decay not in shapes:
        raise ValueError(f'decay={decay!r} is none of {sorted(shapes)}')
    rise = jnp.minimum(1.0, progress / warmup) if warmup else 1.0
    return peak * rise * shapes[decay]


def make_optimizer(*, clip, b1, b2, weight_decay) -> optax.GradientTransformation:
    """AdamW without its learning rate, which the step applies. Only matrices and kernels decay."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.scale_by_adam(b1=b1, b2=b2),
        optax.add_decayed_weights(weight_decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)),
    )


def gradient(loss, params, frozen, batch, parts=1):
    """((loss, dict of scalars), gradient by the trained params) of a batch.

    With `parts` the mean over so many parts of the batch, one after the other in the memory of one.
    """
    of = jax.value_and_grad(lambda params, batch: loss(trees.join(params, frozen), batch), has_aux=True)
    if parts == 1:
        return of(params, batch)
    # Every part takes rows from everywhere in the batch, so that its share on each device lies there already.
    batch = jax.tree.map(partial(rearrange, pattern='(r n) ... -> n r ...', n=parts), batch)
    shapes = jax.eval_shape(of, params, jax.tree.map(lambda leaf: leaf[0], batch))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, of(params, part)), None), nothing, batch)
    return jax.tree.map(lambda leaf: leaf / parts, total)


def check_parts(batch_size, parts, mesh):
    """Raises ValueError where a batch cannot be cut into equal parts that are split evenly over the mesh."""
    if parts < 1 or batch_size % parts:
        raise ValueError(f'a batch of {batch_size} cannot be cut into {parts} equal parts (accumulation)')
    sharding.check_rows(batch_size // parts, mesh)


def needed_flops(objective, params, frozen, data) -> int:
    """Operations of the loss and its gradient that a step on `data` needs; all but data may be shapes.

    Frozen layers have no gradients of their weights, and what rematerialisation computes again is counted once.
    """
    batch = jax.eval_shape(objective.draw, data, jax.random.key(0))
    return cost.flops(partial(gradient, objective.direct), params, frozen, batch)


def make_step(draw, loss, optimizer, *, rate, ema_decay, accumulation=1):
    """A pure function (state, frozen, data, progress, key) -> (state, metrics).

    draw, loss: of an Objective.
    rate: progress -> learning rate.
    accumulation: parts of the batch whose gradients are taken one after the other.
    key: the run's key, the same at every step; batch n is a function of (key, n) alone.
    """

    def step(state, frozen, data, progress, key):
        batch = draw(data, jax.random.fold_in(key, state.step))
        (value, aux), grads = gradient(loss, state.params, frozen, batch, accumulation)
        norm = optax.tree.norm(grads)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        now = rate(progress)
        params = jax.tree.map(lambda p, u: p - now * u, state.params, updates)
        # A young average forgets faster, or the random start would stay in it.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda average, p: decay * average + (1 - decay) * p, state.ema, params)
        moved = states.TrainState(state.step + 1, params, ema, opt)
        # A step whose gradient is not finite is not taken: what it started from is left to be examined and saved.
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        moved = jax.tree.map(partial(jnp.where, finite), moved, state)
        return moved, {'loss': value, 'grad_norm': norm, 'learning_rate': now, **aux}

    return step


def compiled_step(config, draw, loss, optimizer, mesh, places, place_frozen):
    """`make_step` as a run of this config takes it: jitted, its state donated.

    places, place_frozen: shardings of the state and of the frozen parameters. Key, progress and metrics are everywhere.
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
