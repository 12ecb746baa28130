"""The streaming stage: a long video as a fold over chunks.

What one chunk passes to the next is a small explicit state: the last frames (short-term memory, CAM), the anchor
frame's embedding (long-term memory, APM), a key and a number. A chunk is a pure function of (parameters, prompt,
state), so a video can be stopped, stored, continued, re-rolled or given another prompt at any chunk. Before chunk 0 the
state has no memories, and the plain Video-LDM generates that chunk (the Initialization stage); `own_start` makes states
of given frames or a picture. Pixels are passed on as float32.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from st2v_jax import stopping
from st2v_jax.devices import check_finite
from st2v_jax.diffusion import predict, sampling
from st2v_jax.diffusion.noise import frame_noise
from st2v_jax.diffusion.schedule import Level
from st2v_jax.diffusion.solvers import sampling_levels
from st2v_jax.models.contract import Contract
from st2v_jax.models.system import Prompt, System, encode_image, remembered
from st2v_jax.streaming.gate import OFF, Gate, Trial
from st2v_jax.streaming.settings import SampleSettings

# For what share of the steps a picture holds the first and the last frame of its chunk, see `_held`
HELD = (0.85, 0.1)


class StreamState(NamedTuple):
    """What one chunk passes to the next.

    Attributes:
      frames: [b, m, H, W, 3] the last frames so far, float32 in [-1, 1]; None before the first chunk.
      anchor: [b, e] CLIP embedding of the anchor frame; None before the first chunk, and without long-term memory.
      key: [b] one random key for each video.
      index: number of the next chunk, int32.
      picture: [b, h, w, c] latents of the picture that the first chunk begins with; None without one, and later.
      given: how many frames were given before chunk 0, int32; None for a video that begins with text or a picture.
    """

    frames: jax.Array | None
    anchor: jax.Array | None
    key: jax.Array
    index: jax.Array
    picture: jax.Array | None = None
    given: jax.Array | None = None

    @property
    def is_first(self) -> bool:
        """Whether the next chunk is the first."""
        return self.frames is None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as numpy arrays under plain names, for any file format; `from_arrays` gives it back bit for bit."""
        arrays = self._replace(key=None)._asdict().items()
        arrays = {name: np.asarray(array) for name, array in arrays if array is not None}
        return arrays | {
            'key': np.asarray(jax.random.key_data(self.key)),
            'key_kind': np.array(str(jax.random.key_impl(self.key))),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> 'StreamState':
        """The inverse of `to_arrays`. Raises ValueError with the names of missing arrays."""
        if missing := {'key', 'key_kind', 'index'} - set(arrays):
            raise ValueError(f'not the arrays of a state: {", ".join(sorted(missing))} missing')
        key = jax.random.wrap_key_data(jnp.asarray(arrays['key']), impl=str(arrays['key_kind']))
        names = [name for name in cls._fields if name in arrays and name != 'key']
        empty = dict.fromkeys(('frames', 'anchor'))
        return cls(key=key, **empty | {name: jnp.asarray(arrays[name]) for name in names})

    def counted(self, contract: Contract) -> Contract:
        """The contract by which the chunks and frames of this video are counted."""
        return dataclasses.replace(contract, given=self.given is not None)


def start(keys: jax.Array) -> StreamState:
    """The state before the first chunk of b videos, from typed keys [b], one for each."""
    if keys.ndim != 1:
        raise ValueError(f'each video has a key of its own: keys are [b], not of shape {keys.shape}')
    return StreamState(None, None, keys, jnp.int32(0))


def video_keys(seeds: Sequence[int]) -> jax.Array:
    """The keys [b] of videos with these seeds [b]; a video has the same key in every batch."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 0))(jnp.asarray(seeds, jnp.uint32))


REDRAWN = 2**32 - 1  # no chunk has this number, so a redrawn chunk shares noise with no other


def redrawn(keys: jax.Array, draw: int) -> jax.Array:
    """The keys [b] by which a chunk of videos with these keys [b] is drawn the draw-th time; draw 0 is the first."""
    if not draw:
        return keys
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, REDRAWN), draw))(keys)


class Programs(NamedTuple):
    """A chunk as four jitted programs.

    Each receives only the networks that it reads, because dispatching thousands of arrays is slow.

    Attributes:
      begin: (params, prompt, state) -> (initial noise x [b, f, h, w, c], condition of the denoiser).
      step: (params, condition, state, trajectory, inputs) -> trajectory after one denoising step.
      decode: (params, latents [b, f, h, w, c]) -> frames [b, n, H, W, 3] in [-1, 1].
      remember: (params, frames, state) -> the state after the chunk of these new frames.
    """

    begin: Callable
    step: Callable
    decode: Callable
    remember: Callable


def programs(system: System, settings: SampleSettings) -> Programs:
    """The Programs of a system and settings; for equal settings they are compiled once."""

    def begin(params, prompt, state):
        return _begin(system, settings, _some(params, (*_denoising(system, params, state), 'vae')), prompt, state)

    def step(params, condition, state, trajectory, inputs):
        used = _some(params, _denoising(system, params, state))
        return _step(system, settings, used, condition, state, trajectory, inputs)

    def decode(params, latents):
        return _decode(system, settings, _some(params, ('vae',)), latents)

    def remember(params, frames, state):
        return _remember(system, settings, _some(params, ('image',)), frames, state)

    return Programs(begin, step, decode, remember)


def new_latents(system: System, x: jax.Array, state: StreamState) -> jax.Array:
    """The latents of a chunk's new frames: all of the first chunk, and those after the memory of a later one."""
    contract = system.config.contract
    return x if state.is_first else x[:, contract.latents(contract.memory) :]


def stream(
    system: System,
    settings: SampleSettings,
    params: dict[str, Any],
    prompt: Prompt | Callable[[int], Prompt],
    state: StreamState,
    *,
    on_step: Callable[[int, int, int], None] | None = None,
    gate: Gate = OFF,
    tell: Callable[[str], None] = warnings.warn,
) -> Iterator[tuple[jax.Array, StreamState]]:
    """An endless iterator over chunks from `state` on, each as (new frames [b, n, H, W, 3], the state after it).

    prompt is that of all chunks, or a function of a chunk's number, from 0.

    gate says what is done about a chunk with a fault, of one video; tell is called with a line about each of them.

    on_step(chunk, step, steps) is called when a denoising step has been computed; chunk counts from 0, step from 1. The
    host starts every step, so steps can be watched and interrupted.

    Raises OutOfRange for a chunk whose numbers are not finite in the type that the networks compute in.
    """
    params = jax.device_put(params)  # once, not with every chunk
    while True:
        index = int(state.index)
        told = prompt(index) if callable(prompt) else prompt
        trial = Trial(gate, state.frames)
        while trial.goes_on:
            drawn = state._replace(key=redrawn(state.key, trial.draw))
            for number, total, x in denoised(system, settings, params, told, drawn):
                if on_step is not None:
                    jax.block_until_ready(x)
                    on_step(index, number, total)
            with trial.not_finite():
                made = finished(system, settings, params, x, state)
                if trial.is_best(made.frames):
                    chunk = made
        if line := trial.line(index):
            tell(line)
        state = chunk.state
        yield chunk.frames, state


def denoised(
    system: System, settings: SampleSettings, params: dict[str, Any], prompt: Prompt, state: StreamState
) -> Iterator[tuple[int, int, jax.Array]]:
    """The steps of the next chunk, each as (number from 1, how many, x [b, f, h, w, c] after it); the last x is clean.

    A step is yielded when the next one has been started, because the host takes a while to start one; x may not have
    been computed yet. Who stops to ask for steps stops the chunk.
    """
    run, levels = programs(system, settings), levels_of(system, settings, state)
    x, condition = run.begin(params, prompt, state)
    trajectory, inputs = sampling.begin(x, levels), sampling.steps(levels)
    total = len(levels.t) - 1
    for i in range(total):
        stopping.check()
        before = trajectory
        trajectory = run.step(params, condition, state, trajectory, jax.tree.map(lambda leaf, i=i: leaf[i], inputs))
        if i:
            yield i, total, before.x
    yield total, total, trajectory.x


class Chunk(NamedTuple):
    """A chunk that is made.

    Attributes:
      latents: [b, f, h, w, c] clean latents of its new frames.
      frames: [b, n, H, W, 3] its new frames, in [-1, 1].
      state: after it.
    """

    latents: jax.Array
    frames: jax.Array
    state: StreamState


def finished(
    system: System, settings: SampleSettings, params: dict[str, Any], x: jax.Array, state: StreamState
) -> Chunk:
    """The chunk of clean latents x [b, f, h, w, c] after `state`; raises OutOfRange if it is not finite."""
    run, number = programs(system, settings), int(state.index) + 1
    latents = new_latents(system, x, state)
    frames = run.decode(params, latents)
    after = run.remember(params, frames, state)
    # Looked at when all is started, for that takes the host a while.
    check_finite(np.asarray(x), f'the latents of chunk {number}', params)
    check_finite(np.asarray(frames), f'the frames of chunk {number}', params)
    return Chunk(latents, frames, after)


def levels_of(system: System, settings: SampleSettings, state: StreamState) -> Level:
    """The noise levels that the next chunk steps through, leaves [steps + 1]."""
    chunk = settings.of_chunk(state.is_first, state.anchor is not None)
    return sampling_levels(system.config.contract.process, chunk.solver, chunk.steps)


@functools.partial(jax.jit, static_argnums=(0, 1))
def next_chunk(
    system: System, settings: SampleSettings, params: dict[str, Any], prompt: Prompt, state: StreamState
) -> tuple[jax.Array, StreamState]:
    """One chunk as a single program: (its new frames [b, n, H, W, 3], the state after it).

    It can be part of other programs, and equals a chunk of `stream` up to rounding.
    """
    run, levels = programs(system, settings), levels_of(system, settings, state)
    x, condition = run.begin(params, prompt, state)
    step = lambda trajectory, inputs: (run.step(params, condition, state, trajectory, inputs), None)
    trajectory, _ = jax.lax.scan(step, sampling.begin(x, levels), sampling.steps(levels))
    frames = run.decode(params, new_latents(system, trajectory.x, state))
    return frames, run.remember(params, frames, state)


# Inlined where one program calls another, so that the compiler sees `next_chunk` as a single program.
_program = functools.partial(jax.jit, static_argnums=(0, 1), inline=True)


@_program
def _begin(system, settings, params, prompt, state):
    guidance = settings.of_chunk(state.is_first, state.anchor is not None).guidance
    networks = _denoiser(system, params, state)
    text = guidance.stack(lambda branch: prompt.text if branch.text else prompt.null_text)
    memory = anchor = None
    if state.frames is not None:
        memory = remembered(system, params, state.frames)
    if state.anchor is not None:
        tokens = jnp.concatenate([prompt.null_anchor, state.anchor])
        none, own = jnp.split(system.denoiser(networks, tokens, method='anchor_tokens'), 2)
        anchor = guidance.stack(lambda branch: own if branch.anchor else none)
    condition = system.denoiser(networks, text, memory, anchor, texts=guidance.texts, method='condition')
    return _noise(system, state, 0), condition


@_program
def _step(system, settings, params, condition, state, trajectory, inputs):
    chunk, networks = settings.of_chunk(state.is_first, state.anchor is not None), _denoiser(system, params, state)
    network = chunk.guidance(lambda x, t: system.denoiser(networks, x, t, condition))
    denoise = predict.denoiser(network, system.config.contract.process.prediction)
    noise = lambda i: _noise(system, state, i + 1)
    after = sampling.stepper(denoise, solver=chunk.solver, eta=chunk.eta, noise=noise)(trajectory, inputs)
    return after if state.picture is None else _held(system, state, after, inputs, chunk.steps)


def _held(system, state, trajectory, inputs, steps):
    """The trajectory after a step of a chunk that begins with a picture: the frames that are held still show it.

    All frames start from the picture, noised to the level that they have. The first stays it; the others are let go one
    after the other, the last first, so that what is near the picture in time remains near it, and what is far can move.
    """
    i, _, level = inputs
    count = trajectory.x.shape[1]
    share = jnp.linspace(*HELD, count)
    held = (jnp.arange(count) == 0) | (i + 1 < jnp.round(steps * share))
    picture = state.picture[:, None]
    noised = level.alpha * picture + level.sigma * _noise(system, state, 0)
    keep = lambda ours, x: jnp.where(held[:, None, None, None], ours, x)
    return trajectory._replace(x=keep(noised, trajectory.x), x0=keep(picture, trajectory.x0))


@_program
def _decode(system, settings, params, latents):
    """The frames of latents, a few at a time."""
    contract = system.config.contract
    latents = latents / system.config.scale_factor
    if contract.group_latents > 1:  # groups are decoded one after the other
        latents = rearrange(latents, 'b (k g) ... -> b k g ...', g=contract.group_latents)
    b, n = latents.shape[:2]
    together = math.gcd(n, max(1, settings.decode_frames // contract.group_frames))
    pieces = rearrange(latents, 'b (k g) ... -> k (b g) ...', g=together)
    frames = jax.lax.map(lambda piece: system.vae(params['vae'], piece, method='decode'), pieces)
    frames = rearrange(frames, 'k (b g) ... -> b (k g) ...', b=b)
    if contract.group_latents > 1:
        frames = rearrange(frames, 'b k g ... -> b (k g) ...')
    return jnp.clip(frames.astype(jnp.float32), -1, 1)


@_program
def _remember(system, settings, params, frames, state):
    seen, anchor = frames, state.anchor
    if not state.is_first:
        seen = jnp.concatenate([state.frames, frames], 1)
    elif 'image' in params:  # a Video-LDM alone has no image tower, and makes no later chunk
        anchor = encode_image(system, params, frames[:, settings.anchor_frame])
    memory = seen[:, -system.config.contract.memory :]
    return StreamState(memory, anchor, state.key, state.index + 1, given=state.given)


def _noise(system, state, noise_index):
    """Noise of the chunk's absolute latent frames.

    Each chunk has noise of its own, as in training: the frames that condition a chunk must not be correlated with the
    noise that it denoises.
    """
    contract = system.config.contract
    key = jax.vmap(jax.random.fold_in, (0, None))(state.key, state.index)
    count, *shape = contract.latent_shape(state.is_first)
    frames = contract.begins_at(state.index, state.is_first) + jnp.arange(count)
    return frame_noise(key, noise_index, frames, tuple(shape))


def _denoiser(system, params, state):
    """The parameters that denoise this chunk: the first may have a backbone of its own, and reads no memories."""
    used = _some(params, _denoising(system, params, state))
    return {system.config.backbone.KIND: used['initial']} if 'initial' in used else used


def _denoising(system, params, state):
    """The names of the networks that denoise this chunk."""
    backbone = system.config.backbone.KIND
    if state.is_first:
        return ('initial',) if 'initial' in params else (backbone,)
    return backbone, 'cam', 'apm'


def _some(params, names):
    return {name: params[name] for name in names if name in params}
