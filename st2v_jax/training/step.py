"""One training step: a batch is drawn, its gradient taken, the parameters and their average moved."""

import jax
import jax.numpy as jnp
import optax

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


def make_step(loss, optimizer, *, rate, ema_decay):
    """A pure function (state, frozen, data, progress, key) -> (state, metrics).

    loss: (params, data, key) -> (loss, dict of scalars); it draws its batch from `data` with the key.
    rate: progress -> learning rate.
    key: the run's key, the same at every step; batch n is a function of (key, n) alone.
    """

    def step(state, frozen, data, progress, key):
        key = jax.random.fold_in(key, state.step)

        def of_trained(params):
            return loss(states.join(params, frozen), data, key)

        (value, aux), grads = jax.value_and_grad(of_trained, has_aux=True)(state.params)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        now = rate(progress)
        params = jax.tree.map(lambda p, u: p - now * u, state.params, updates)
        # A young average forgets faster, or the random start would stay in it.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda average, p: decay * average + (1 - decay) * p, state.ema, params)
        metrics = {'loss': value, 'grad_norm': optax.tree.norm(grads), 'learning_rate': now, **aux}
        return states.TrainState(state.step + 1, params, ema, opt), metrics

    return step
