"""Ways to make a long video from one model: streaming, and the baselines that it is compared with.

Each is a function (model, settings, params, prompt, key, num_frames) that yields frames [b, n, H, W, 3] in [-1, 1]
until there are at least `num_frames`; params are those of the model, perhaps placed on several devices, and prompt and
key are those of b videos.
"""

import functools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax import stopping
from st2v_jax.diffusion import predict, sampling
from st2v_jax.diffusion.noise import frame_noise
from st2v_jax.models import build
from st2v_jax.models.contract import Contract
from st2v_jax.models.free_noise import WindowedUNet3D
from st2v_jax.models.system import Prompt
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.streaming import stream
from st2v_jax.streaming.generate import Model
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.trees import computed_in

STRIDE = 4  # of the windows of FreeNoise, as in its release


def streaming(
    model: Model, settings: SampleSettings, params: dict[str, Any], prompt: Prompt, key: jax.Array, num_frames: int
) -> Iterator[jax.Array]:
    """StreamingT2V, with the memories that the model has."""
    chunks = stream.stream(model.system, settings, params, prompt, stream.start(key))
    for _ in range(model.config.contract.chunks(num_frames)):
        yield next(chunks)[0]


def no_anchor(
    model: Model, settings: SampleSettings, params: dict[str, Any], prompt: Prompt, key: jax.Array, num_frames: int
) -> Iterator[jax.Array]:
    """Streaming without long-term memory: the anchor of every chunk is a picture without content, as in guidance."""
    state = stream.start(key)
    for _ in range(model.config.contract.chunks(num_frames)):
        frames, state = next(stream.stream(model.system, settings, params, prompt, state))
        yield frames
        if state.anchor is not None:
            state = state._replace(anchor=prompt.null_anchor)


def apart(
    model: Model, settings: SampleSettings, params: dict[str, Any], prompt: Prompt, key: jax.Array, num_frames: int
) -> Iterator[jax.Array]:
    """Chunks that know nothing of each other but the prompt: each is a first chunk with noise of its own."""
    for number in range(math.ceil(num_frames / model.config.contract.first_frames)):
        own = stream.start(jax.vmap(jax.random.fold_in, (0, None))(key, number))
        yield next(stream.stream(model.system, settings, params, prompt, own))[0]


def last_frame(
    model: Model, settings: SampleSettings, params: dict[str, Any], prompt: Prompt, key: jax.Array, num_frames: int
) -> Iterator[jax.Array]:
    """Each chunk knows the last frame of the one before it and nothing else: no motion, and no anchor."""
    state, memory = stream.start(key), model.config.contract.memory
    for _ in range(model.config.contract.chunks(num_frames)):
        frames, state = next(stream.stream(model.system, settings, params, prompt, state))
        yield frames
        state = state._replace(frames=jnp.repeat(frames[:, -1:], memory, 1), anchor=None)


def free_noise(
    model: Model, settings: SampleSettings, params: dict[str, Any], prompt: Prompt, key: jax.Array, num_frames: int
) -> Iterator[jax.Array]:
    """FreeNoise: the Video-LDM makes all frames at once, from noise that repeats in another order.

    Raises ValueError for a backbone other than the UNet, whose attention over frames is not a layer of its own.
    """
    config, length = model.config, model.config.contract.first_frames
    if not isinstance(config.backbone, UNetConfig):
        raise ValueError('FreeNoise works on the UNet, whose attention over frames it changes')
    first, chosen = stream.start(key), settings.of_chunk(True, False)
    unet = params['initial'] if 'initial' in params else params['unet']
    network = build.network(WindowedUNet3D, config.backbone, length, STRIDE, dtype=computed_in(unet))
    levels = stream.levels_of(model.system, settings, first)
    noise = rescheduled(key, max(num_frames, length), length, STRIDE, tuple(config.latent_shape[1:]))
    condition = _free_noise_condition(network, chosen.guidance, unet, prompt)
    trajectory, inputs = sampling.begin(noise, levels), sampling.steps(levels)
    for number in range(len(levels.t) - 1):
        stopping.check()
        one = jax.tree.map(lambda leaf, i=number: leaf[i], inputs)
        trajectory = _free_noise_step(
            network, chosen, config.contract.process.prediction, unet, key, condition, trajectory, one
        )
    yield stream.programs(model.system, settings).decode(params, trajectory.x)


def rescheduled(key: jax.Array, frames: int, length: int, stride: int, shape: tuple[int, ...]) -> jax.Array:
    """The initial noise [b, frames, *shape] of FreeNoise.

    The first `length` frames are independent. Every `stride` frames after them have the noise of the `stride` frames
    `length` before them, in a random order, so that distant frames still share their noise.
    """

    index = np.tile(np.arange(length), (len(key), 1))
    for begin in range(length, frames, stride):
        keys = jax.vmap(jax.random.fold_in, (0, None))(key, begin)
        order = np.asarray(jax.vmap(partial(jax.random.permutation, x=stride))(keys))
        index = np.concatenate([index, np.take_along_axis(index[:, begin - length :], order, 1)], 1)
    base = frame_noise(key, 0, np.arange(length), shape)
    return base[np.arange(len(key))[:, None], index[:, :frames]]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _free_noise_condition(network, guidance, params, prompt):
    text = guidance.stack(lambda branch: prompt.text if branch.text else prompt.null_text)
    return network(params, text, method='keys_values')


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _free_noise_step(network, chosen, prediction, params, key, condition, trajectory, inputs):
    guided = chosen.guidance(lambda x, t: network(params, x, t, condition))
    noise = lambda i: frame_noise(key, i + 1, np.arange(trajectory.x.shape[1]), trajectory.x.shape[2:])
    return sampling.stepper(predict.denoiser(guided, prediction), solver=chosen.solver, eta=chosen.eta, noise=noise)(
        trajectory, inputs
    )


def chunk_frames(method: str, contract: Contract) -> tuple[int, int]:
    """New frames of the first and of each later chunk of a method; FreeNoise has none and is looked at as streaming."""
    return contract.first_frames, contract.first_frames if method == 'apart' else contract.stride


METHODS: dict[str, Callable] = {
    'streaming': streaming,
    'no-anchor': no_anchor,
    'apart': apart,
    'last-frame': last_frame,
    'free-noise': free_noise,
}
