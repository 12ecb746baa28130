"""Training the attribute checker on clips of the world, softened as generated frames are."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange

from st2v_jax.data import world
from st2v_jax.errors import TrainingError
from st2v_jax.evaluation import checker, record
from st2v_jax.models import build
from st2v_jax.open_model import load_weights


def train_on_world(
    file, *, folder=None, size=None, seed, seconds, steps, batch, batches=8, channels=checker.CHANNELS, command=''
):
    """Trains a checker of all classes, measures it on fresh clips that nothing softened, and writes its file.

    folder: of a model whose autoencoder softens some of the clips, or None. size: pixels of a frame; None is that of
    the model, else 128. batches: of fresh clips. The others as for `train`.
    """
    dtype, reconstruct = record.network_dtype(), None
    if folder is not None:
        config, params = load_weights(folder, ('vae',))
        size = size or config.frame_size[0]
        if (size, size) != config.frame_size:
            height, width = config.frame_size
            raise ValueError(f'the autoencoder of {folder} is for {height}x{width} pixels, not {size}x{size}')
        reconstruct = _round_trip(build.vae(config, dtype), params['vae'])
    size = size or 128
    sample = world_clips(seed, size)
    heads = {name: len(classes) for name, classes in checker.CLASSES.items()}
    began = time.monotonic()
    params, history = train(
        jax.random.key(seed),
        sample,
        heads,
        seconds=seconds,
        steps=steps,
        batch=batch,
        channels=channels,
        reconstruct=reconstruct,
        dtype=dtype,
        report=_say,
    )
    right = accuracy(params, sample, jax.random.key(seed + 1), batches=batches, batch=batch)
    about = record.made(command) | {
        'size': size,
        'seed': seed,
        'batch': batch,
        'seconds': time.monotonic() - began,
        'steps': history[-1]['step'] if history else 0,
        'classes': checker.CLASSES,
        'accuracy': right,
        'history': history,
    }
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    checker.save(file, params, about)
    print('fresh clips: ' + ', '.join(f'{name} {100 * share:.1f} %' for name, share in right.items()))
    print(f'checker: {file}')


def _round_trip(vae, params):
    """clips [n, f, h, w, 3] -> clips through the autoencoder."""

    def reconstruct(clips):
        frames = rearrange(clips, 'n f h w c -> (n f) h w c')
        latents, _ = vae(params, frames, method='encode')
        return vae(params, latents, method='decode').astype(clips.dtype).reshape(clips.shape)

    return reconstruct


def _say(row):
    if row['step'] % 500 == 0:
        numbers = ', '.join(f'{name} {value:.3f}' for name, value in row.items() if name not in ('step', 'seconds'))
        print(f'step {row["step"]}, {row["seconds"]:.0f} s: {numbers}', flush=True)


def world_clips(seed, size, frames=checker.FRAMES, last_start=1200):
    """sample(key, n) -> (clips [n, frames, size, size, 3], labels {head: [n]}) of one-object scenes of the world.

    Where a scene has two objects the second is taken away; clips begin at any frame up to `last_start`.
    """

    def sample(key, n):
        of_scene, of_start = jax.random.split(key)
        scenes = jax.vmap(world.scene, (None, 0))(seed, jax.random.randint(of_scene, (n,), 0, 2**31 - 1))
        scenes = scenes._replace(count=jnp.ones_like(scenes.count))
        start = jax.random.randint(of_start, (n,), 0, last_start + 1)
        clips = jax.vmap(lambda scene, t: world.render(scene, t + jnp.arange(frames), size))(scenes, start)
        return clips, {name: getattr(scenes, name)[:, 0] for name in checker.CLASSES}

    return sample


def accuracy(params, sample, key, *, batches=8, batch=64):
    """Shares {head: float} that params gets right on fresh clips of sample(key, n)."""
    draw, right = jax.jit(sample, static_argnums=1), []
    for i in range(batches):
        clips, labels = draw(jax.random.fold_in(key, i), batch)
        believed = checker.posteriors(params, clips, batch=min(batch, 16))
        right.append({name: (believed[name].argmax(-1) == np.asarray(labels[name])).mean() for name in believed})
    return {name: float(np.mean([row[name] for row in right])) for name in right[0]}


def soften(key, clips):
    """What generated frames are and rendered frames are not: a little blurred, noisy, tinted. Shapes stay.

    Each clip draws its own strength of each, the same for all its frames.
    """
    b, _, h, w, _ = clips.shape
    keys = jax.random.split(key, 5)
    amount = lambda key, high: jax.random.uniform(key, (b, 1, 1, 1, 1), maxval=high)
    coarse = rearrange(clips, 'b f (h p) (w q) c -> b f h w (p q) c', p=2, q=2).mean(4)
    coarse = jax.image.resize(coarse, clips.shape, 'linear')
    share = amount(keys[0], 1.0)
    clips = (1 - share) * clips + share * coarse
    gain = 1 + 0.08 * jax.random.normal(keys[1], (b, 1, 1, 1, 3))
    clips = clips * gain + 0.05 * jax.random.normal(keys[2], (b, 1, 1, 1, 3))
    return clips + amount(keys[3], 0.1) * jax.random.normal(keys[4], clips.shape)


def loss(params, clips, labels, dtype=jnp.float32):
    """Sum over the heads of the cross entropy; labels {head: [b] int}. Also the accuracies {head: scalar}."""
    scores = checker.logits(params, clips, dtype)
    entropies = {n: optax.softmax_cross_entropy_with_integer_labels(scores[n], labels[n]).mean() for n in scores}
    right = {n: (scores[n].argmax(-1) == labels[n]).mean() for n in scores}
    return sum(entropies.values()), right


def train(
    key,
    sample,
    heads,
    *,
    seconds,
    steps=100_000,
    batch=64,
    rate=1e-3,
    channels=checker.CHANNELS,
    reconstruct=None,
    dtype=jnp.float32,
    report=None,
):
    """Train a checker until `steps` or `seconds` (counted after the compilation) are over, whichever comes first.

    sample(key, n) -> (clips [n, f, h, w, 3], labels {head: [n]}), traceable; heads {head: number of classes};
    reconstruct(clips) -> clips, an autoencoder's round trip, replaces the first quarter of each batch, so that the
    checker has seen the model's own softness. The learning rate rises over 100 steps and then falls linearly to zero.
    Returns (params, history), history a list of {'step', 'seconds', 'loss', head: accuracy}.
    """
    tx = optax.inject_hyperparams(optax.adamw)(learning_rate=rate, weight_decay=1e-2)

    def step(params, state, key, rate):
        draw, soft = jax.random.split(key)
        clips, labels = sample(draw, batch)
        if reconstruct is not None and batch >= 4:
            clips = jnp.concatenate([reconstruct(clips[: batch // 4]), clips[batch // 4 :]])
        clips = soften(soft, clips)
        (value, right), grads = jax.value_and_grad(loss, has_aux=True)(params, clips, labels, dtype)
        norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda g: g * jnp.minimum(1, 1 / (norm + 1e-9)), grads)
        state.hyperparams['learning_rate'] = rate
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, {'loss': value, **right}

    init_key, key = jax.random.split(key)
    params = checker.init(init_key, heads, channels)
    state = tx.init(params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, key, jnp.float32(0)).compile()
    history, began, i, waiting = [], time.monotonic(), 0, None
    while i < steps:
        gone = time.monotonic() - began
        if gone >= seconds:
            break
        left = 1 - max(i / steps, gone / seconds)
        now = rate * min(1.0, (i + 1) / 100) * left
        params, state, metrics = compiled(params, state, jax.random.fold_in(key, i), jnp.float32(now))
        i += 1
        jax.block_until_ready(waiting)  # the step before: a clock read further ahead would tell nothing
        waiting = metrics
        if i % 50 == 0 or i == steps:
            row = {'step': i, 'seconds': time.monotonic() - began, **{n: float(v) for n, v in metrics.items()}}
            if not np.isfinite(row['loss']):
                raise TrainingError(f'the loss of the checker is {row["loss"]} at step {i}')
            history.append(row)
            if report is not None:
                report(row)
    return params, history
