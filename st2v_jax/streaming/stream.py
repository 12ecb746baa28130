"""The streaming stage: a long video as a fold over chunks.

What one chunk owes the next is a small explicit state: the last frames (short-term memory, CAM), the anchor frame's
embedding (long-term memory, APM), a key and a number. A chunk is a pure function of (parameters, context, state), so a
video can be stopped, stored, continued, re-rolled or given another prompt at any chunk. Chunk 0 is the state without
memories: the plain Video-LDM draws it (the Initialization stage). Pixels go from chunk to chunk as float32.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from st2v_jax.diffusion import predict, sampling
from st2v_jax.diffusion.schedule import sampling_levels
from st2v_jax.models import ablations, build
from st2v_jax.models.clip import preprocess


@dataclass(frozen=True)
class SampleSettings:
    """How a video is sampled; hashable, since it is part of what is compiled. `settings_for` fills in a profile.

    Attributes:
      profile: 'paper' guides by eq. 12 with two scales; 'release' by the text scale alone, text and anchor together.
      steps, solver, eta: of the streaming stage; solver 'ddim' or 'dpmpp_2m', eta is DDIM's.
      guidance_text, guidance_anchor: w_text and w_anchor of eq. 12.
      guidance_rescale: share by which guided predictions are pulled back to the conditional one's spread; 0 is off.
      first_steps, first_solver, first_guidance: of the first chunk, which is deterministic given its noise.
      anchor_frame: which frame of the first chunk is the anchor a of all later chunks.
      decode_frames: frames of a video decoded at once; bounds memory, changes nothing else.
    """

    profile: str = 'paper'
    steps: int = 50
    solver: str = 'ddim'
    eta: float = 0.0
    guidance_text: float = 7.5
    guidance_anchor: float = 7.5
    guidance_rescale: float = 0.0
    first_steps: int = 50
    first_solver: str = 'ddim'
    first_guidance: float = 7.5
    anchor_frame: int = 0
    decode_frames: int = 4

    def __post_init__(self):
        if self.profile not in PROFILES:
            raise ValueError(f'profile is one of {tuple(PROFILES)}, not {self.profile!r}')
        for solver in (self.solver, self.first_solver):
            if solver not in sampling.SOLVERS:
                raise ValueError(f'solver is one of {sampling.SOLVERS}, not {solver!r}')
        if self.eta < 0 or (self.eta and self.solver != 'ddim'):
            raise ValueError(f'eta is at least 0, and 0 unless the solver is ddim; got {self.eta} with {self.solver}')
        if min(self.steps, self.first_steps, self.decode_frames) < 1:
            raise ValueError(f'steps and decode_frames are at least 1, not {self.steps}, {self.first_steps}, '
                             f'{self.decode_frames}')


# The sampling rules in which the paper and its released program differ.
PROFILES = {
    'paper': {'solver': 'ddim', 'eta': 0.0, 'first_solver': 'ddim', 'first_guidance': 7.5, 'guidance_text': 7.5},
    'release': {'solver': 'ddim', 'eta': 1.0, 'first_solver': 'dpmpp_2m', 'first_guidance': 9.0, 'guidance_text': 7.5},
}


def settings_for(config: build.ModelConfig, **overrides) -> SampleSettings:
    """The settings a model is sampled with: its profile's rules, its own guidance scales, then the overrides.

    `steps` alone also sets `first_steps`; `profile='...'` overrides the one stored with the model.
    """
    known = {field.name for field in dataclasses.fields(SampleSettings)}
    if unknown := overrides.keys() - known:
        raise ValueError(f'unknown settings {sorted(unknown)}; there are {sorted(known)}')
    profile = overrides.get('profile', config.profile)
    if profile not in PROFILES:
        raise ValueError(f'profile is one of {tuple(PROFILES)}, not {profile!r}')
    own = {'guidance_text': config.guidance_text, 'guidance_anchor': config.guidance_anchor}
    if config.profile == 'paper':
        own['first_guidance'] = config.guidance_text
    if 'steps' in overrides:
        own['first_steps'] = overrides['steps']
    settings = SampleSettings(**{'profile': profile, **PROFILES[profile], **own, **overrides})
    if not 0 <= settings.anchor_frame < config.frames:
        raise ValueError(f'anchor_frame={settings.anchor_frame} is not one of the {config.frames} frames of a chunk')
    return settings


@dataclass(frozen=True, eq=False)
class System:
    """The networks of one model as pure functions (see models/build.py) and its config; made once, by `system`."""

    config: build.ModelConfig
    vae: Callable
    text: Callable
    image: Callable
    denoiser: Callable


def system(config: build.ModelConfig, dtype=jnp.float32) -> System:
    """The System of a config, computing in `dtype`; equal calls get the same one, so nothing is compiled twice."""
    return _system(config, jnp.dtype(dtype))


@functools.cache
def _system(config, dtype):
    return System(config, build.vae(config, dtype), build.text_tower(config, dtype), build.image_tower(config, dtype),
                  build.denoiser(config, dtype))


class Context(NamedTuple):
    """What the prompt says, encoded: text and null_text [b,77,d], null_anchor [b,e] (the image without content)."""

    text: Any
    null_text: Any
    null_anchor: Any


class StreamState(NamedTuple):
    """What one chunk owes the next.

    Attributes:
      frames: [b,m,H,W,3] the last frames so far, float32 in [-1, 1]; None before the first chunk.
      anchor: [b,e] CLIP embedding of the anchor frame; None before the first chunk, and without long-term memory.
      key: [b] one random key per video.
      index: number of the chunk to come, int32.
    """

    frames: Any
    anchor: Any
    key: Any
    index: Any


def start(key, batch: int = 1) -> StreamState:
    """The state before the first chunk. `key` is one typed key, of which each video gets its own, or one per video."""
    if key.shape == ():
        key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    if key.shape != (batch,):
        raise ValueError(f'{batch} videos need one key or {batch}, not keys of shape {key.shape}')
    return StreamState(None, None, key, jnp.int32(0))


@functools.partial(jax.jit, static_argnums=0)
def encode_prompt(system: System, params, ids, null_ids) -> Context:
    """Context of token ids [b,77]; null_ids [b,77] are the empty string's or the negative prompt's.

    The null anchor is the embedding of an all-zero image (mid grey), not a zero embedding; None without an image tower.
    """
    side = system.config.image_size
    null_anchor = encode_image(system, params, jnp.zeros((len(ids), side, side, 3))) if 'image' in params else None
    text = system.text(params['text'], jnp.concatenate([ids, null_ids]))
    return Context(*jnp.split(text, 2), null_anchor)


def encode_image(system: System, params, frames):
    """CLIP embeddings [b,e] of frames [b,H,W,3] in [-1, 1] of any size."""
    return system.image(params['image'], preprocess(frames, system.config.image.image_size))


def remembered(system: System, params, frames, mask=None):
    """`ablations.remembered` for this model: what its short-term memory is given of frames [b,m,H,W,3]; mask [b,m]."""
    config = system.config

    def encode(frames):
        images = rearrange(frames, 'b m ... -> (b m) ...')
        mean, _ = system.vae(params['vae'], images, method='encode')
        return rearrange(mean * config.scale_factor, '(b m) ... -> b m ...', b=len(frames))

    return ablations.remembered(config.cam.fusion, frames, length=config.frames, encode=encode, mask=mask)


def frame_noise(key, draw, frames, shape):
    """Gaussian noise [b,f,*shape]: a pure function of (key, draw, absolute frame), the same however frames are grouped.

    key [b]; draw 0 is the initial noise and draw i + 1 that of step i; frames [f] absolute frame numbers.
    """
    def one(key, frame):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, draw), frame), shape)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(key, frames)


def next_chunk(system: System, settings: SampleSettings, params, context: Context, state: StreamState):
    """One chunk: (its new frames [b,n,H,W,3], the state after it).

    All frames of the first chunk are new; later chunks generate the remembered frames anew, and those are left out.
    One compiled program for the first chunk, one for all later ones.
    """
    return _next_chunk(system, settings, params, context, state)


def stream(system: System, settings: SampleSettings, params, context: Context, state: StreamState, *, on_step=None):
    """Endless iterator over chunks, each (new frames [b,n,H,W,3], the state after it), beginning at `state`.

    on_step(chunk, step, steps) is called when a denoising step has been computed. The steps are then driven from the
    host, each chunk by three compiled programs instead of one, so that they can be watched and interrupted; a callback
    inside a single program would keep that out of the persistent compilation cache.
    """
    params = jax.device_put(params)  # once, not with every chunk
    advance = next_chunk if on_step is None else functools.partial(_watched_chunk, on_step)
    while True:
        frames, state = advance(system, settings, params, context, state)
        yield frames, state


def generate(system: System, settings: SampleSettings, params, context: Context, key, num_frames: int, *,
             on_step=None) -> Iterator[jax.Array]:
    """Iterator over the frames of a video, [b,n,H,W,3] in [-1, 1] chunk by chunk, exactly num_frames in all."""
    if num_frames < 1:
        raise ValueError(f'a video has at least 1 frame, not {num_frames}')
    chunks = stream(system, settings, params, context, start(key, len(context.text)), on_step=on_step)
    return _take(chunks, num_frames)


def chunk_count(config: build.ModelConfig, num_frames: int) -> int:
    """Chunks needed for num_frames frames."""
    return 1 + max(0, math.ceil((num_frames - config.frames) / (config.frames - config.memory)))


def _take(chunks, num_frames):
    while num_frames > 0:
        frames, _ = next(chunks)
        yield frames[:, :num_frames]
        num_frames -= frames.shape[1]


def _chunk(system, settings, params, context, state):
    x, condition = _begin(system, settings, params, context, state)
    levels, step = _sampler(system, settings, params, condition, state)
    trajectory = jax.lax.scan(lambda carry, inputs: (step(carry, inputs), None), sampling.begin(x, levels),
                              sampling.steps(levels))[0]
    return _end(system, settings, params, trajectory.x, state)


def _begin(system, settings, params, context, state):
    """The chunk's initial noise [b,f,h,w,c] and the conditions of its guidance branches, stacked in the batch."""
    text, null, none = context
    texts, anchors, memory = [null, text], None, None
    if state.frames is not None:
        memory = repeat(remembered(system, params, state.frames), 'b ... -> (n b) ...', n=2)  # one for each text
    if state.anchor is not None:
        anchors = [none, state.anchor]
        if settings.profile == 'paper':
            texts, anchors = [null, text, text], [none, none, state.anchor]
        anchors = jnp.concatenate(anchors)
    condition = system.denoiser(_denoiser(params, state), jnp.concatenate(texts), memory, anchors, method='condition')
    return _noise(system, state, 0), condition


def _sampler(system, settings, params, condition, state):
    """The noise levels of the chunk and one step along them."""
    first = state.frames is None
    solver, count = (settings.first_solver, settings.first_steps) if first else (settings.solver, settings.steps)
    eta = 0.0 if first else settings.eta
    levels = sampling_levels(system.config.diffusion, solver, count)

    def network(x, t):
        return system.denoiser(_denoiser(params, state), x, t, condition)

    rescale = settings.guidance_rescale
    if first:
        network = predict.single_scale(network, settings.first_guidance, rescale=rescale)
    elif settings.profile == 'paper' and state.anchor is not None:
        network = predict.text_and_anchor(network, settings.guidance_text, settings.guidance_anchor, rescale=rescale)
    else:
        network = predict.single_scale(network, settings.guidance_text, rescale=rescale)
    denoise = predict.denoiser(network, system.config.diffusion.prediction)
    return levels, sampling.stepper(denoise, solver=solver, eta=eta, noise=lambda i: _noise(system, state, i + 1))


def _end(system, settings, params, x, state):
    """Decodes the new frames of the chunk's latents x [b,f,h,w,c] and makes the next state."""
    config = system.config
    new = x if state.frames is None else x[:, config.memory:]
    frames = _decode(system, settings, params, new)
    if state.frames is None:
        seen, anchor = frames, None
        if 'image' in params:  # a Video-LDM by itself has none, and draws no other chunk
            anchor = encode_image(system, params, frames[:, settings.anchor_frame])
    else:
        seen, anchor = jnp.concatenate([state.frames, frames], 1), state.anchor
    return frames, StreamState(seen[:, -config.memory:], anchor, state.key, state.index + 1)


def _decode(system, settings, params, latents):
    """Frames [b,n,H,W,3] in [-1, 1] of latents [b,n,h,w,c], a few at a time."""
    b, n = latents.shape[:2]
    groups = rearrange(latents / system.config.scale_factor, 'b (k g) ... -> k (b g) ...',
                       g=math.gcd(n, settings.decode_frames))
    frames = jax.lax.map(lambda group: system.vae(params['vae'], group, method='decode'), groups)
    frames = rearrange(frames, 'k (b g) ... -> b (k g) ...', b=b)
    return jnp.clip(frames.astype(jnp.float32), -1, 1)


def _noise(system, state, draw):
    """Noise of the chunk's absolute frames. Each chunk has its own, as it had in training: the frames a chunk is
    conditioned on must not be correlated with the noise it denoises."""
    config = system.config
    key = jax.vmap(jax.random.fold_in, (0, None))(state.key, state.index)
    first_frame = state.index * (config.frames - config.memory)
    return frame_noise(key, draw, first_frame + jnp.arange(config.frames), config.latent_shape[1:])


def _denoiser(params, state):
    """The denoiser of this chunk: the first may have a UNet of its own, and reads no memories."""
    used = _some(params, _networks(params, state))
    return {'unet': used['initial']} if 'initial' in used else used


def _networks(params, state):
    if state.frames is None:
        return ('initial',) if 'initial' in params else ('unet',)
    return 'unet', 'cam', 'apm'


def _some(params, names):
    return {name: params[name] for name in names if name in params}


_static = functools.partial(jax.jit, static_argnums=(0, 1))
_next_chunk = _static(_chunk)
_jit_begin = _static(_begin)
_jit_end = _static(_end)


@_static
def _jit_step(system, settings, params, condition, state, trajectory, inputs):
    _, step = _sampler(system, settings, params, condition, state)
    return step(trajectory, inputs)


def parts(system: System, settings: SampleSettings):
    """A chunk as the three programs that a watched `stream` runs.

    begin(params, context, state) -> (noise x, condition); step(params, condition, state, trajectory, inputs) ->
    trajectory; end(params, x, state) -> (new frames, the state after it). Each is handed the networks that its
    chunk may run there and no others: a program is slow to be handed thousands of arrays.
    """
    def begin(params, context, state):
        used = _some(params, (*_networks(params, state), 'vae'))
        return _jit_begin(system, settings, used, context, state)

    def step(params, condition, state, trajectory, inputs):
        used = _some(params, _networks(params, state))
        return _jit_step(system, settings, used, condition, state, trajectory, inputs)

    def end(params, x, state):
        return _jit_end(system, settings, _some(params, ('vae', 'image')), x, state)

    return begin, step, end


def _watched_chunk(on_step, system, settings, params, context, state):
    begin, one_step, end = parts(system, settings)
    x, condition = begin(params, context, state)
    levels, _ = _sampler(system, settings, params, condition, state)
    trajectory, inputs = sampling.begin(x, levels), sampling.steps(levels)
    index, total = int(state.index), len(levels.t) - 1

    def tell(number, trajectory):
        jax.block_until_ready(trajectory.x)
        on_step(index, number, total)

    for i in range(total):
        now = jax.tree.map(lambda leaf, i=i: leaf[i], inputs)
        before, trajectory = trajectory, one_step(params, condition, state, trajectory, now)
        if i:  # told while the next step runs: starting one takes the host a while, thousands of parameters go with it
            tell(i, before)
    tell(total, trajectory)
    return end(params, trajectory.x, state)
