"""A finer video from a video and its prompt, as functions: `load_enhancer` once, `enhance` as many as you like."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from st2v_jax import sharding
from st2v_jax.devices import check_finite, default_dtype
from st2v_jax.models import build
from st2v_jax.models.attention import KeysValues
from st2v_jax.models.contract import Contract
from st2v_jax.models.system import between
from st2v_jax.open_model import OpenModel, on_device, open_model
from st2v_jax.refinement import blend, kept, scratch, sdedit
from st2v_jax.refinement.canvas import Canvas, crop, fit, to_canvas
from st2v_jax.refinement.levels import Levels
from st2v_jax.streaming.generate import check_seeds, text_ids
from st2v_jax.streaming.prompt_schedule import PromptSchedule, Text, as_schedules
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.trees import computed_in, leaves
from st2v_jax.video_io import to_floats
from st2v_jax.weights import layout


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('params',),
    meta_fields=('config', 'tokenizer', 'refiner', 'vae', 'text', 'mesh'),
)
@dataclass(frozen=True, eq=False)
class Enhancer:
    """A Refiner that is ready to work, with its autoencoder and text tower; as a pytree it has the leaves of `params`.

    Attributes:
      config: of the whole model; its autoencoder and text tower are those of the Refiner.
      tokenizer: that of the text tower.
      params: {'refiner', 'vae', 'text': nested dict of arrays on the devices}.
      refiner, vae, text: the networks as pure functions.
      mesh: the devices that chunks are spread over; None is one device.
    """

    config: build.ModelConfig
    tokenizer: Tokenizer
    params: dict[str, Any]
    refiner: sdedit.Refiner
    vae: build.Network
    text: build.Network
    mesh: jax.sharding.Mesh | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of its config and its parameters, in the type that they compute in."""
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for path, leaf in sorted(leaves(self.params)):
            digest.update(f'{path} {leaf.dtype} {leaf.shape}'.encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()

    def settings(self, **overrides: Any) -> sdedit.RefineSettings:
        """How this model refines: its own settings with one chunk on each device at a time, then the overrides.

        Raises ValueError for an unknown name or value.
        """
        devices = 1 if self.mesh is None else self.mesh.size
        own = {'group': devices, 'span': devices * max(1, sdedit.RefineSettings.span // devices)}
        return sdedit.settings_for(self.config, **own | overrides)

    def canvas(self, size: tuple[int, int]) -> Canvas:
        """The Canvas for frames of (height, width) pixels; its `size` is that of the enhanced frames."""
        return fit(size, self.config.refiner.box, self.config.refiner.unet, self.config.vae.downsampling)

    def scratch_bytes(self, settings: sdedit.RefineSettings, size: tuple[int, int], frames: int) -> int:
        """The size of the temporary files that `enhance` writes for so many frames of (height, width) pixels."""
        (_, *shape), _ = sdedit.level_shapes(settings, (1, frames))
        most = max(4 * math.prod(shape), frames + 2 * math.prod(shape))  # two generations of two, or while noised
        pixels = math.prod(self.canvas(size).whole) // self.config.vae.downsampling**2
        return most * pixels * self.config.vae.latent_channels * np.dtype(np.float32).itemsize

    def job(self, settings: sdedit.RefineSettings, condition: list[KeysValues], keys: blend.Keys) -> sdedit.Job:
        """The Job of refining a video; condition is as from `encode_texts`."""
        return sdedit.Job(self.refiner, settings, self.params['refiner'], condition, keys, self.mesh)


def load_enhancer(
    folder: str | Path | OpenModel | None = None, dtype: DTypeLike | None = None, *, devices: int = 1
) -> Enhancer:
    """Loads the enhancer of a model on disk.

    Args:
      folder: whatever `open_model` takes or returned; None is the model that ships with the package.
      dtype: as for `load`.
      devices: how many devices work together, each on chunks of its own.

    Raises:
      WeightsError: for a folder without a Refiner, or whose weights do not fit its config or the dtype.
      ValueError: if there are not that many devices.
    """
    if not 1 <= devices <= len(jax.devices()):
        raise ValueError(f'there are {len(jax.devices())} devices to spread chunks over, not {devices}')
    model = open_model(folder)
    networks = layout.refinement(model.config)
    tokenizer = model.tokenizer(networks['text'])
    dtype = default_dtype() if dtype is None else dtype
    mesh = sharding.make_mesh({sharding.DATA: devices}, jax.devices()[:devices]) if devices > 1 else None
    everywhere = None if mesh is None else sharding.replicated(mesh)
    params = build.with_biases(model.params(networks.values(), on_device(dtype, everywhere)), dtype)
    return enhancer_of(model.config, params, dtype, tokenizer, mesh)


def enhancer_of(
    config: build.ModelConfig,
    params: dict[str, Any],
    dtype: DTypeLike,
    tokenizer: Tokenizer | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Enhancer:
    """The Enhancer made of a whole model's config and {network: parameters}, which may be shapes."""
    params = {part: params[name] for part, name in layout.refinement(config).items()}
    own = config.for_refinement
    refiner = sdedit.Refiner(build.refiner(own, dtype), own.refiner.process)
    return Enhancer(own, tokenizer, params, refiner, build.vae(own, dtype), build.text_tower(own, dtype), mesh)


def enhance(
    enhancer: Enhancer,
    frames: np.ndarray | Iterable[np.ndarray],
    prompt: str | PromptSchedule,
    *,
    seed: int = 0,
    negative_prompt: str = '',
    contract: Contract | None = None,
    profile: str | None = None,
    decode_frames: int = 4,
    folder: str | Path | None = None,
    keep: str | None = None,
    on_step: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Iterator[np.ndarray]:
    """Enhances a video: makes it larger and sharper, guided by its prompt; the number of frames and the aspect stay.

    Args:
      enhancer: as from `load_enhancer`.
      frames: an array [F, H, W, 3], or an iterable of such pieces as from `generate`; float in [-1, 1] or uint8. They
        are read once, and never all at once.
      prompt: what the video shows. Where it changes on the way, a chunk takes the text in force at its middle frame.
      seed: 0 .. 2**32 - 1; the same seed, settings and device give the same video.
      negative_prompt: what guidance leads away from.
      contract: of the model that the video was sampled with, in whose chunks the prompt changed; None is at the frame.
      profile: 'paper' or 'release', which decides how frames are enlarged and chunks blended; None is the model's own.
      decode_frames: frames encoded or decoded at once; bounds memory, changes nothing else.
      folder: where temporary files hold the latents during the work, about 1 MB for each frame of 720x1280.
      keep: what the frames are, such as their hash. With it, `folder` belongs to this enhancement and stays: after a
        kill at any moment the same call goes on, does at most one span of chunks again, and gives the same frames, bit
        for bit on the same machine. Once they are encoded, frames are not read again. Groups, spans, devices and
        decode_frames may be others, which may change rounding. `kept.remove` removes the folder.
      on_step: called as on_step(step, steps) after every denoising step, each of which takes the whole video, and at
        the beginning if steps were done before.
      settings: those of `RefineSettings`, such as steps=20, variant='B+S', guidance=5.0.

    Returns:
      An iterator over float32 arrays [n, h, w, 3] in [-1, 1], of the size `enhancer.canvas(...).size`. The first one
      comes after the last step.

    Raises:
      ValueError: at once for an empty prompt or an impossible setting, and during the iteration for frames of another
        shape.
      OSError: during the iteration, if the files do not fit; it names them.
      OutputError: during the iteration, if the folder is that of something else, or damaged, or in use.
      OutOfRange: during the iteration, for numbers that are not finite in the type that the networks compute in.
    """
    check_seeds([seed])
    profile = enhancer.config.profile if profile is None else profile
    if profile not in blend.BLENDING:
        raise ValueError(f'profile is one of {blend.BLENDING}, not {profile!r}')
    if decode_frames < 1:
        raise ValueError(f'at least 1 frame is decoded at once, not {decode_frames}')
    chosen = enhancer.settings(**{'variant': profile} | settings)
    (schedule,) = as_schedules(prompt)
    # The release gives its Refiner the prompt with a comma after it.
    null_ids, *ids = enhancer.tokenizer.ids([negative_prompt, *(f'{prompt}, ' for prompt in schedule.prompts)])
    ids = dict(zip(schedule.prompts, ids, strict=True))
    keys = blend.split_keys(jax.random.key(seed)[None])
    pieces = _pieces([frames] if isinstance(frames, np.ndarray) else frames, decode_frames)
    if keep is None:
        place = scratch.scratch(folder)
    else:
        known = made_of(enhancer, schedule, negative_prompt, contract, profile, seed, chosen)
        place = kept.kept(folder, {'video': keep} | known)

    def told(levels, steps):
        check_finite(levels.x, f'the latents after step {levels.done}', enhancer.params)
        if on_step is not None:
            on_step(levels.done, steps)

    def enhanced():
        with place as files:
            video = kept.find_encoded(files) or _encode(enhancer, profile, pieces, files)
            canvas, (count, *_) = enhancer.canvas(video.size), video.latents
            distinct, texts = texts_of_chunks(schedule, contract, chosen.plan(count))
            job = enhancer.job(chosen, encode_texts(enhancer, *_with_null(text_ids(ids, distinct), null_ids)), keys)
            levels = Levels.find(*sdedit.level_shapes(chosen, (1, *video.latents)), chosen.steps, files)
            if levels is None:
                levels = sdedit.begin(job, video.read(files)[None], folder=files)
            video.forget(files)
            if levels.done:
                told(levels, chosen.steps)
            latents = sdedit.refine(job, levels, count, texts=texts, on_step=told)
            size = min(count, decode_frames)
            for first in range(0, count, size):
                piece = latents[0, first : first + size]
                frames = np.asarray(decode_latents(enhancer, _padded(piece, size), canvas=canvas)[: len(piece)])
                check_finite(frames, 'the decoded frames', enhancer.params)
                yield frames

    return enhanced()


def made_of(
    enhancer: Enhancer,
    schedule: PromptSchedule,
    negative_prompt: str,
    contract: Contract | None,
    profile: str,
    seed: int,
    settings: sdedit.RefineSettings,
) -> dict[str, Any]:
    """What determines enhanced frames beside the video, as JSON values; the arguments are those of `enhance`."""
    chosen = dataclasses.asdict(settings)
    for name in ('group', 'span'):  # how it is computed
        del chosen[name]
    chunks = None if contract is None else [contract.opening, contract.stride]
    return {
        'model': enhancer.fingerprint,
        'prompts': dataclasses.asdict(schedule) | {'chunks': chunks},
        'negative_prompt': negative_prompt,
        'seed': seed,
        'profile': profile,
        'dtype': str(computed_in(enhancer.params['refiner'])),
        **chosen,
    }


def _pieces(frames, size):
    """The frames of an iterable of arrays [n, H, W, 3], `size` at a time; the last piece may have fewer."""
    waiting, shape = [], None
    for some in frames:
        if np.ndim(some) != 4 or np.shape(some)[1:] != (shape or (*np.shape(some)[1:3], 3)):
            raise ValueError(f'frames are arrays [n, H, W, 3] of one size, not {np.shape(some)}')
        shape = np.shape(some)[1:]
        for frame in np.asarray(some):
            waiting.append(frame)
            if len(waiting) == size:
                yield np.stack(waiting)
                waiting = []
    if waiting:
        yield np.stack(waiting)


def _padded(piece, size):
    """The piece filled up with its last frame, so that one compiled program serves all pieces."""
    return np.pad(piece, [(0, size - len(piece))] + [(0, 0)] * (piece.ndim - 1), mode='edge')


def _encode(enhancer, profile, pieces, folder):
    """The Encoded frames of a video, which goes on where the file in `folder` ends."""
    file, count, canvas = Path(folder, kept.LATENTS), 0, None
    for piece in pieces:
        if canvas is None:
            size, frame_size = len(piece), piece.shape[1:3]
            canvas = enhancer.canvas(frame_size)
            encode = functools.partial(encode_frames, canvas=canvas, profile=profile)
            shape = jax.eval_shape(encode, enhancer, piece).shape[1:]
            there = scratch.cut(file, math.prod((size, *shape)) * np.dtype(np.float32).itemsize) * size
        if count >= there:
            latents = np.asarray(encode(enhancer, _padded(piece, size))[: len(piece)])
            check_finite(latents, 'the latents of the frames', enhancer.params)
            scratch.append(file, latents)
        count += len(piece)
    if canvas is None:
        raise ValueError('a video has at least 1 frame, not 0')
    return kept.Encoded.of(folder, frame_size, (count, *shape))


def texts_of_chunks(
    schedule: PromptSchedule, contract: Contract | None, plan: blend.Plan
) -> tuple[list[Text], np.ndarray | None]:
    """The different texts that the chunks of a video take, and which of them each takes, [n]; None if there is one.

    A chunk takes the text in force at its middle frame. contract: as for `enhance`.
    """
    middle = plan.indices[:, plan.indices.shape[1] // 2]
    text = schedule.at if contract is None else functools.partial(schedule.of_frame, contract)
    texts = [text(int(frame)) for frame in middle]
    distinct = list(dict.fromkeys(texts))
    return distinct, None if len(distinct) == 1 else np.array([distinct.index(text) for text in texts], np.int32)


def _with_null(told, null_ids):
    """The arguments of `encode_texts` after the enhancer."""
    ids = np.stack([null_ids, *told.ids])
    if not told.share.any():
        return (ids,)
    return ids, np.stack([null_ids, *told.following]), np.append(np.float32(0), told.share)


@jax.jit
def encode_texts(
    enhancer: Enhancer, ids: jax.Array, following: jax.Array | None = None, share: jax.Array | None = None
) -> list[KeysValues]:
    """Keys and values, for all steps, of the texts [unconditional, conditional, ...] with token ids [n, t].

    With `following` [n, t], texts lie at share [n] of the way from the ones to the others.
    """
    params = enhancer.params
    states = enhancer.text(params['text'], ids)
    if following is not None:
        states = between(states, enhancer.text(params['text'], following), share)
    return enhancer.refiner.unet(params['refiner'], states, method='keys_values')


@functools.partial(jax.jit, static_argnames=('canvas', 'profile'))
def encode_frames(enhancer: Enhancer, frames: jax.Array, *, canvas: Canvas, profile: str) -> jax.Array:
    """Scaled latents [n, h, w, c] of frames [n, H, W, 3], uint8 or float in [-1, 1], on the canvas."""
    if frames.dtype == jnp.uint8:
        frames = to_floats(frames)
    mean, _ = enhancer.vae(enhancer.params['vae'], to_canvas(frames, canvas, profile), method='encode')
    return mean * enhancer.config.scale_factor


@functools.partial(jax.jit, static_argnames='canvas')
def decode_latents(enhancer: Enhancer, latents: jax.Array, *, canvas: Canvas) -> jax.Array:
    """Frames [n, H, W, 3] in [-1, 1] of scaled latents [n, h, w, c], without the padding of the canvas."""
    frames = enhancer.vae(enhancer.params['vae'], latents / enhancer.config.scale_factor, method='decode')
    return jnp.clip(crop(frames, canvas), -1, 1)
