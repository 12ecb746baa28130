"""The attribute checker: what colour, shape and motion does the object of a 16-frame clip have?

A small network trained on ground-truth clips of the world, held-out combinations included: it is the measuring
instrument, not the thing measured. It is a plain function of a nested dict of arrays.

Colour and shape show in one frame, motion only in several: the first convolution sees each frame together with its
difference to the frame before, and every resolution mixes each position over three neighbouring frames.
"""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange

from st2v_jax import trees
from st2v_jax.data import world
from st2v_jax.storage.atomic import replacing

CLASSES = {'colour': world.COLOURS, 'shape': world.SHAPES, 'motion': world.MOTIONS, 'pattern': world.PATTERNS}
FRAMES = 16  # of a clip
CHANNELS = (32, 64, 128, 192)


def init(key, heads, channels=CHANNELS):
    """Parameters for heads {'colour': number of classes, ...}."""
    keys = iter(jax.random.split(key, 3 * len(channels) + len(heads) + 1))

    def weights(*shape):
        fan_in = int(np.prod(shape[:-1]))
        return {'kernel': jax.random.normal(next(keys), shape) * (2 / fan_in) ** 0.5, 'bias': jnp.zeros(shape[-1])}

    params, width = {}, 6
    for i, c in enumerate(channels):
        size = 5 if i == 0 else 3
        params[f'stage_{i}'] = {
            'space': weights(size, size, width, c), 'time': weights(3 * c, c), 'scale': jnp.ones((2, c)),
        }
        width = c
    params['clip'] = weights(3 * 2 * width, 2 * width)
    params['heads'] = {name: weights(2 * 2 * width, n) for name, n in heads.items()}
    return params


def neighbours(x):
    """x [b, f, ..., c] -> [b, f, ..., 3 c]: each frame beside the one before and the one after (the ends repeat)."""
    before = jnp.concatenate([x[:, :1], x[:, :-1]], 1)
    after = jnp.concatenate([x[:, 1:], x[:, -1:]], 1)
    return jnp.concatenate([before, x, after], -1)


def normed(x, scale):
    """Root-mean-square norm over the channels of each position."""
    mean_square = jnp.mean(jnp.square(x.astype(jnp.float32)), -1, keepdims=True)
    return (x * jax.lax.rsqrt(mean_square + 1e-6)).astype(x.dtype) * scale.astype(x.dtype)


def logits(params, clips, dtype=jnp.float32):
    """clips [b, f, h, w, 3] in [-1, 1] -> {head: [b, classes]} in float32."""
    b, f = clips.shape[:2]
    dense = lambda p, x: x @ p['kernel'].astype(x.dtype) + p['bias'].astype(x.dtype)
    clips = clips.astype(dtype)
    before = jnp.concatenate([clips[:, :1], clips[:, :-1]], 1)
    x = jnp.concatenate([clips, 4 * (clips - before)], -1)
    stages = [params[name] for name in sorted(params) if name.startswith('stage_')]
    for stage in stages:
        x = rearrange(x, 'b f h w c -> (b f) h w c')
        x = jax.lax.conv_general_dilated(
            x, stage['space']['kernel'].astype(dtype), (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        ) + stage['space']['bias'].astype(dtype)
        x = rearrange(x, '(b f) h w c -> b f h w c', b=b, f=f)
        x = jax.nn.silu(normed(x, stage['scale'][0]))
        x = x + jax.nn.silu(dense(stage['time'], neighbours(normed(x, stage['scale'][1]))))
    x = jnp.concatenate([x.mean((2, 3)), x.max((2, 3))], -1)
    x = jax.nn.silu(dense(params['clip'], neighbours(x)))
    x = jnp.concatenate([x.mean(1), x.max(1)], -1).astype(jnp.float32)
    return {name: dense(head, x) for name, head in params['heads'].items()}


@jax.jit
def _believe(params, clips):
    return jax.tree.map(jax.nn.softmax, logits(params, clips))


def posteriors(params, clips, batch=16):
    """Like logits, but softmaxed, in batches, as numpy: {head: [b, classes]}."""
    parts = []
    for start in range(0, len(clips), batch):
        part = np.asarray(clips[start : start + batch])
        short = batch - len(part)
        part = np.concatenate([part, np.repeat(part[-1:], short, 0)]) if short else part  # one shape, one compilation
        parts.append(jax.tree.map(lambda x: np.asarray(x)[: batch - short], _believe(params, part)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def identity(one, other, heads=('colour', 'shape', 'pattern')):
    """How alike the objects of two clips look, from the posteriors {head: [b, classes]} of both -> [b] in 0..1.

    Mean over the heads of the Bhattacharyya coefficient sum(sqrt(p q)): one when the checker believes the same of
    both clips, zero when its beliefs exclude each other. Motion is left out: an object may change its course.
    """
    overlaps = [np.sqrt(one[name] * other[name]).sum(-1) for name in heads if name in one]
    return np.mean(overlaps, 0)


# Training


def world_clips(seed, size, frames=FRAMES, last_start=1200):
    """sample(key, n) -> (clips [n, frames, size, size, 3], labels {head: [n]}) of one-object scenes of the world.

    Where a scene has two objects the second is taken away; clips begin at any frame up to `last_start`.
    """
    def sample(key, n):
        of_scene, of_start = jax.random.split(key)
        scenes = jax.vmap(world.scene, (None, 0))(seed, jax.random.randint(of_scene, (n,), 0, 2**31 - 1))
        scenes = scenes._replace(count=jnp.ones_like(scenes.count))
        start = jax.random.randint(of_start, (n,), 0, last_start + 1)
        clips = jax.vmap(lambda scene, t: world.render(scene, t + jnp.arange(frames), size))(scenes, start)
        return clips, {name: getattr(scenes, name)[:, 0] for name in CLASSES}

    return sample


def accuracy(params, sample, key, *, batches=8, batch=64):
    """Shares {head: float} that params gets right on fresh clips of sample(key, n)."""
    draw, right = jax.jit(sample, static_argnums=1), []
    for i in range(batches):
        clips, labels = draw(jax.random.fold_in(key, i), batch)
        believed = posteriors(params, clips, batch=min(batch, 16))
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
    scores = logits(params, clips, dtype)
    entropies = {n: optax.softmax_cross_entropy_with_integer_labels(scores[n], labels[n]).mean() for n in scores}
    right = {n: (scores[n].argmax(-1) == labels[n]).mean() for n in scores}
    return sum(entropies.values()), right


def train(key, sample, heads, *, seconds, steps=100_000, batch=64, rate=1e-3, channels=CHANNELS, reconstruct=None,
          dtype=jnp.float32, report=None):
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
    params = init(init_key, heads, channels)
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
                raise FloatingPointError(f'the checker\'s loss is {row["loss"]} at step {i}')
            history.append(row)
            if report is not None:
                report(row)
    return params, history


# One file


def save(path, params, about):
    """Write params and a JSON dict about them (image size, classes, how they were trained) to one npz file."""
    leaves = {name: np.asarray(leaf) for name, leaf in trees.leaves(params)}
    with replacing(path) as file:
        np.savez(file, about=json.dumps(about), **leaves)


def load(path):
    """-> (params, about) of a file written by save."""
    with np.load(path) as file:
        about = json.loads(str(file['about']))
        return trees.unflatten({name: file[name] for name in file.files if name != 'about'}), about
