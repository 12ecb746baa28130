"""The objective of the autoencoder: reconstruct frames of the world, which are rendered again at every step."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from st2v_jax.data import pool, world
from st2v_jax.models import build
from st2v_jax.models.build import ModelConfig, Network
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training.objective import Objective, Params
from st2v_jax.training.pools import draw_frames
from st2v_jax.weights.layout import networks


def objective(
    config: ConfigDict, model: ModelConfig, params: Params, tokenizer: Tokenizer, mesh: Mesh, key: jax.Array
) -> Objective:
    """Trains `config.network`: 'vae', or 'refiner_vae' for the larger frames of the Refiner. Captions are not used.

    'refiner_vae' starts as a copy of 'vae' if both have the same layers. `finish` measures the scale that gives latents
    a standard deviation of one.
    """
    data, name = config.data, config.network
    if name not in networks(model):
        raise ValueError(f'this model has no network {name}: its Refiner uses the autoencoder of the streaming stage')
    sized = model
    if name != 'vae':
        sized = dataclasses.replace(model.for_refinement, frame_size=(min(model.refiner.box),) * 2)
    network, size = build.vae(sized, jnp.dtype(config.dtype)), sized.frame_size
    indices = pool.rows(world.split_indices('train', data.seed, 0, data.scenes), config.batch_size, mesh)
    trained = params.get(name) or (params.get('vae') if sized.vae == model.vae else None) or build.init(key, network)

    def examples(scenes, key):
        draw_key, noise_key = jax.random.split(key)
        frames = draw_frames(draw_key, scenes, data.seed, size)
        latents, _ = jax.eval_shape(partial(network, method='encode'), network.abstract, frames)
        return frames, jax.random.normal(noise_key, latents.shape)

    def loss(params, examples):
        frames, noise = examples
        mean, logvar = network(params[name], frames, method='encode')
        latents = mean + jnp.exp(0.5 * logvar) * noise
        made = network(params[name], latents, method='decode')
        l1, mse, edges = reconstruction(made, frames)
        kl = 0.5 * jnp.mean(mean**2 + jnp.exp(logvar) - 1 - logvar)
        aux = {'l1': l1, 'psnr': 10 * jnp.log10(4 / mse), 'kl': kl}
        return l1 + 0.5 * mse + config.edge_weight * edges + config.kl_weight * kl, aux

    def finish(params, model):
        scale = 1 / latent_deviation(network, params[name], indices, data.seed, size)
        own = {'scale_factor': scale}
        if name != 'vae':
            own = {'refiner': dataclasses.replace(model.refiner, **own)}
        return params, dataclasses.replace(model, **own)

    params = {**params, name: trained}
    is_trained = lambda path: path.startswith(f'{name}/')
    return Objective(params, is_trained, pool.place(indices, mesh), examples, loss, loss, finish)


def reconstruction(made: jax.Array, frames: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compares two batches of images [b, h, w, 3].

    Returns:
      The L1 distance, the mean squared distance and the edge distance. The edge distance is the L1 distance of
      horizontal and vertical differences at full, half and quarter size; it keeps textures that a mean over pixels
      would blur.
    """
    error = made - frames
    edges, at_scale = 0.0, error
    for _ in range(3):
        edges += jnp.mean(jnp.abs(jnp.diff(at_scale, axis=1))) + jnp.mean(jnp.abs(jnp.diff(at_scale, axis=2)))
        at_scale = _halve(at_scale)
    return jnp.mean(jnp.abs(error)), jnp.mean(jnp.square(error)), edges / 3


def _halve(x):
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def latent_deviation(
    network: Network,
    params: Params,
    indices: np.ndarray,
    seed: int,
    size: tuple[int, int],
    batches: int = 8,
    batch: int = 32,
) -> float:
    """Standard deviation of the unscaled latent means of frames of training scenes."""

    @jax.jit
    def moments(params, scenes, key):
        mean, _ = network(params, draw_frames(key, scenes, seed, size), method='encode')
        return jnp.mean(mean), jnp.mean(mean**2)

    scenes = jnp.asarray(indices).reshape(-1)
    batch = min(batch, len(scenes))
    rows = scenes[: len(scenes) // batch * batch].reshape(batch, -1)
    keys = jax.random.split(jax.random.key(0), batches)
    mean, square = (sum(values) / batches for values in zip(*(moments(params, rows, key) for key in keys), strict=True))
    return float(jnp.sqrt(square - mean**2))
