"""Trains the attribute checker on clips of the world, softened so that they look like generated ones."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange

from st2v_jax import stopping
from st2v_jax.data import world
from st2v_jax.errors import TrainingError
from st2v_jax.evaluation import checker, record
from st2v_jax.models import build
from st2v_jax.open_model import load_weights

SMALLER, LARGER = 0.6, 1.5  # than the world makes an object


def train_on_world(
    file: str | Path,
    *,
    folder: str | Path | None = None,
    size: int | None = None,
    seed: int,
    seconds: float,
    steps: int,
    batch: int,
    batches: int = 8,
    channels: tuple[int, ...] = checker.CHANNELS,
    command: str = '',
) -> None:
    """Trains a checker for all attributes, measures it on new clips that are not softened, and writes its file.

    Args:
      file: npz file to write.
      folder: weights whose autoencoder softens some of the clips, or None.
      size: pixels of a frame; None takes that of the weights, or 128.
      seed: of the world and of the network.
      seconds: as for `train`.
      steps: as for `train`.
      batch: as for `train`.
      batches: number of batches of new clips.
      channels: of the network.
      command: stored in the file.
    """
    dtype, reconstruct = record.network_dtype(), None
    if folder is not None:
        config, params = load_weights(folder, ('vae',))
        size = size or config.frame_size[0]
        if (size, size) != config.frame_size:
            height, width = config.frame_size
            raise ValueError(f'the autoencoder of {folder} works on {height}x{width} pixels, not {size}x{size}')
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
    print('accuracy on new clips: ' + ', '.join(f'{name} {100 * share:.1f} %' for name, share in right.items()))
    print(f'checker: {file}')


def _round_trip(vae, params):
    """A function that encodes and decodes clips [n, f, h, w, 3]."""

    def reconstruct(clips):
        frames = rearrange(clips, 'n f h w c -> (n f) h w c')
        latents, _ = vae(params, frames, method='encode')
        return vae(params, latents, method='decode').astype(clips.dtype).reshape(clips.shape)

    return reconstruct


def _say(row):
    if row['step'] % 500 == 0:
        numbers = ', '.join(f'{name} {value:.3f}' for name, value in row.items() if name not in ('step', 'seconds'))
        print(f'step {row["step"]}, {row["seconds"]:.0f} s: {numbers}', flush=True)


def world_clips(seed: int, size: int, frames: int = checker.FRAMES, last_start: int = 1200) -> Callable:
    """A function sample(key, n) -> (clips [n, frames, size, size, 3], labels {head: [n]}) of scenes with one object.

    The second object of a scene is removed; clips begin at a random frame up to `last_start`. Half of the objects are
    made smaller or larger than the world makes them, since a model may do so too. The label of the size is the step of
    `checker.SIZES` nearest to the mean radius in the clip.
    """

    def sample(key, n):
        of_scene, of_start, of_radius = jax.random.split(key, 3)
        scenes = jax.vmap(world.scene, (None, 0))(seed, jax.random.randint(of_scene, (n,), 0, 2**31 - 1))
        scenes = scenes._replace(count=jnp.ones_like(scenes.count))
        start = jax.random.randint(of_start, (n,), 0, last_start + 1)
        drawn = jax.random.uniform(of_radius, (n, 1), minval=-1.0)
        grown = jnp.where(drawn < 0, 1.0, SMALLER * (LARGER / SMALLER) ** drawn)
        scenes = scenes._replace(radius=scenes.radius * grown)
        clips = jax.vmap(lambda scene, t: world.render(scene, t + jnp.arange(frames), size))(scenes, start)
        shown = jax.vmap(lambda scene, t: world.truth(scene, t + jnp.arange(frames), size)['radii'])(scenes, start)
        radius = shown[:, :, 0].mean(1) / size
        steps = jnp.abs(jnp.log(radius)[:, None] - jnp.log(jnp.array(checker.SIZES))).argmin(-1)
        named = [name for name in checker.CLASSES if name != 'size']
        return clips, {name: getattr(scenes, name)[:, 0] for name in named} | {'size': steps}

    return sample


def accuracy(
    params: dict[str, Any], sample: Callable, key: jax.Array, *, batches: int = 8, batch: int = 64
) -> dict[str, float]:
    """The share of new clips of `sample` for which each head of the checker is right."""
    draw, right = jax.jit(sample, static_argnums=1), []
    for i in range(batches):
        clips, labels = draw(jax.random.fold_in(key, i), batch)
        believed = checker.posteriors(params, clips, batch=min(batch, 16))
        right.append({name: (believed[name].argmax(-1) == np.asarray(labels[name])).mean() for name in believed})
    return {name: float(np.mean([row[name] for row in right])) for name in right[0]}


def soften(key: jax.Array, clips: jax.Array) -> jax.Array:
    """Makes rendered clips [b, f, h, w, 3] look like generated ones: a little blurred, noisy and tinted.

    The strengths are drawn for each clip and are the same for all its frames.
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


def loss(
    params: dict[str, Any], clips: jax.Array, labels: dict[str, jax.Array], dtype: jnp.dtype = jnp.float32
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The cross entropy summed over the heads, and the accuracy of each; labels {head: [b] int}."""
    scores = checker.logits(params, clips, dtype)
    entropies = {n: optax.softmax_cross_entropy_with_integer_labels(scores[n], labels[n]).mean() for n in scores}
    right = {n: (scores[n].argmax(-1) == labels[n]).mean() for n in scores}
    return sum(entropies.values()), right


def train(
    key: jax.Array,
    sample: Callable,
    heads: dict[str, int],
    *,
    seconds: float,
    steps: int = 100_000,
    batch: int = 64,
    rate: float = 1e-3,
    channels: tuple[int, ...] = checker.CHANNELS,
    reconstruct: Callable | None = None,
    dtype: jnp.dtype = jnp.float32,
    report: Callable | None = None,
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Trains a checker until a number of steps or a time is reached, whichever comes first.

    The learning rate rises over 100 steps and then falls linearly to zero.

    Args:
      key: random key.
      sample: (key, n) -> (clips [n, f, h, w, 3], labels {head: [n]}); traceable.
      heads: number of classes by head.
      seconds: time limit, without compiling.
      steps: limit of the steps.
      batch: clips of a step.
      rate: peak of the learning rate.
      channels: of the network.
      reconstruct: clips -> clips, the round trip through an autoencoder, for the first quarter of each batch, so that
        the checker knows how soft the model's frames are.
      dtype: that the network computes in.
      report: called with each row of the history.

    Returns:
      The parameters, and the history, a list of {'step', 'seconds', 'loss', head: accuracy}.
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
        stopping.check()
        gone = time.monotonic() - began
        if gone >= seconds:
            break
        left = 1 - max(i / steps, gone / seconds)
        now = rate * min(1.0, (i + 1) / 100) * left
        params, state, metrics = compiled(params, state, jax.random.fold_in(key, i), jnp.float32(now))
        i += 1
        jax.block_until_ready(waiting)  # waits for the step before, so that the clock is not read too far ahead
        waiting = metrics
        if i % 50 == 0 or i == steps:
            row = {'step': i, 'seconds': time.monotonic() - began, **{n: float(v) for n, v in metrics.items()}}
            if not np.isfinite(row['loss']):
                raise TrainingError(f'the loss of the checker is {row["loss"]} at step {i}')
            history.append(row)
            if report is not None:
                report(row)
    return params, history
