"""The objective of CLIP: match each frame of a batch with its caption, and each caption with its frame.

Radford et al. 2021, arXiv:2103.00020.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from st2v_jax.data import caption_tokens, pool, world
from st2v_jax.models import build
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.clip import preprocess
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training.objective import Objective, Params
from st2v_jax.training.pools import draw_frames

LARGEST_SCALE = 100.0  # of the logits, as in CLIP


def objective(
    config: ConfigDict, model: ModelConfig, params: Params, tokenizer: Tokenizer, mesh: Mesh, key: jax.Array
) -> Objective:
    """Trains 'text' and 'image', and a temperature that is not saved."""
    data, dtype = config.data, jnp.dtype(config.dtype)
    if config.accumulation != 1:
        raise ValueError(
            f'stage clip compares all examples of a batch, so accumulation must be 1, not {config.accumulation}'
        )
    towers = {'text': build.text_tower(model, dtype), 'image': build.image_tower(model, dtype)}
    fresh = {
        name: params.get(name) or build.init(jax.random.fold_in(key, i), towers[name]) for i, name in enumerate(towers)
    }
    temperature = {'log_scale': np.float32(np.log(1 / 0.07))}

    indices = world.split_indices('train', data.seed, 0, data.scenes)
    ids, group = caption_tokens.token_table(tokenizer, data.seed, indices, data.captions)
    table = {'scene': indices, 'ids': ids, 'group': group}
    table = {name: pool.rows(values, config.batch_size, mesh) for name, values in table.items()}

    def examples(table, key):
        scene_key, frame_key, caption_key = jax.random.split(key, 3)
        batch = pool.draw(scene_key, table)
        frames = draw_frames(frame_key, batch['scene'][:, None], data.seed, model.frame_size)
        return {'frames': frames, 'ids': pool.draw(caption_key, batch['ids']), 'group': batch['group']}

    def loss(params, batch):
        texts = towers['text'](params['text'], batch['ids'], method='embed')
        images = towers['image'](params['image'], preprocess(batch['frames'], model.image.image_size))
        scale = jnp.minimum(jnp.exp(params['temperature']['log_scale']), LARGEST_SCALE)
        value, accuracy = contrast(texts, images, scale, batch['group'])
        return value, {'accuracy': accuracy, 'scale': scale}

    def finish(params, model):
        return {name: tree for name, tree in params.items() if name != 'temperature'}, model

    params = {**params, **fresh, 'temperature': temperature}
    return Objective(params, _is_trained, pool.place(table, mesh), examples, loss, loss, finish)


def _is_trained(path):
    return path.startswith(('text/', 'image/', 'temperature/'))


def contrast(texts: jax.Array, images: jax.Array, scale: jax.Array, group: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss and accuracy of matching texts [b, e] with images [b, e], in both directions.

    Pairs of the same group [b] match each other as well as themselves; the target is spread evenly over them.
    """
    texts, images = _unit(texts), _unit(images)
    logits = scale * jnp.matmul(texts, images.T, precision='highest')
    same = group[:, None] == group[None]
    target = same / jnp.sum(same, axis=1, keepdims=True)

    def cross_entropy(logits):
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=1))

    found = jnp.take_along_axis(same, jnp.argmax(logits, axis=1)[:, None], axis=1)
    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2, jnp.mean(found)


def _unit(x):
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
