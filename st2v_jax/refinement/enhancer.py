"""A finer video from a video and its prompt, as functions: `load_enhancer` once, `enhance` as many as you like."""

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from st2v_jax import sharding
from st2v_jax.models import build
from st2v_jax.models.attention import KeysValues
from st2v_jax.open_model import OpenModel, default_dtype, on_device, open_model
from st2v_jax.refinement import blend, sdedit
from st2v_jax.refinement.canvas import Canvas, crop, fit, to_canvas
from st2v_jax.streaming.generate import check
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.video_io import to_floats
from st2v_jax.weights import layout


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=('params',),
    meta_fields=('config', 'tokenizer', 'refiner', 'vae', 'text', 'mesh'),
)
@dataclass(frozen=True, eq=False)
class Enhancer:
    """A Refiner that is ready to work, with the autoencoder and the text tower it works with; a pytree of its params.

    Attributes:
      config: of the whole model; its autoencoder and text tower are the Refiner's.
      tokenizer: of the text tower.
      params: arrays on the devices, by network: 'refiner', 'vae', 'text'.
      refiner, vae, text: the networks as pure functions.
      mesh: of the devices that chunks are spread over; None is one device.
    """

    config: build.ModelConfig
    tokenizer: Tokenizer
    params: dict[str, Any]
    refiner: sdedit.Refiner
    vae: build.Network
    text: build.Network
    mesh: jax.sharding.Mesh | None = None

    def settings(self, **overrides: Any) -> sdedit.RefineSettings:
        """How this model refines: its own settings, as many chunks at once as devices, then the overrides.

        Raises ValueError for a name or value that does not exist.
        """
        devices = 1 if self.mesh is None else self.mesh.size
        own = {'group': devices, 'span': devices * max(1, sdedit.RefineSettings.span // devices)}
        return sdedit.settings_for(self.config, **own | overrides)

    def canvas(self, size: tuple[int, int]) -> Canvas:
        """Where frames of (height, width) pixels lie; its `size` is that of the enhanced ones."""
        return fit(size, self.config.refiner.box, self.config.refiner.unet, self.config.vae.downsampling)

    def job(self, settings: sdedit.RefineSettings, condition: list[KeysValues], keys: blend.Keys) -> sdedit.Job:
        """The refinement of a video; condition as from `encode_texts`."""
        return sdedit.Job(self.refiner, settings, self.params['refiner'], condition, keys, self.mesh)


def load_enhancer(
    folder: str | Path | OpenModel | None = None, dtype: DTypeLike | None = None, *, devices: int = 1
) -> Enhancer:
    """The enhancer of a model on disk: whatever `open_model` takes, also what it gave; None is the shipped one.

    dtype: as for `load`. devices: how many of the devices work together, each on chunks of its own.
    Raises WeightsError for a folder without a Refiner or whose weights do not fit its config, and ValueError where
    there are not that many devices.
    """
    if not 1 <= devices <= len(jax.devices()):
        raise ValueError(f'there are {len(jax.devices())} devices to spread chunks over, not {devices}')
    model = open_model(folder)
    networks = layout.refinement(model.config)
    tokenizer = model.tokenizer(networks['text'])
    dtype = default_dtype() if dtype is None else dtype
    mesh = sharding.make_mesh({sharding.DATA: devices}, jax.devices()[:devices]) if devices > 1 else None
    everywhere = None if mesh is None else sharding.replicated(mesh)
    params = model.params(networks.values(), on_device(dtype, everywhere))
    return enhancer_of(model.config, params, dtype, tokenizer, mesh)


def enhancer_of(
    config: build.ModelConfig,
    params: dict[str, Any],
    dtype: DTypeLike,
    tokenizer: Tokenizer | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Enhancer:
    """The Enhancer of a whole model's config and its parameters by network, which may be shapes."""
    params = {part: params[name] for part, name in layout.refinement(config).items()}
    own = config.for_refinement
    refiner = sdedit.Refiner(build.refiner(own, dtype), own.refiner.process)
    return Enhancer(own, tokenizer, params, refiner, build.vae(own, dtype), build.text_tower(own, dtype), mesh)


def enhance(
    enhancer: Enhancer,
    frames: np.ndarray | Iterable[np.ndarray],
    prompt: str,
    *,
    seed: int = 0,
    negative_prompt: str = '',
    profile: str | None = None,
    decode_frames: int = 4,
    folder: str | Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Iterator[np.ndarray]:
    """Enhances a video: larger, sharper, with what its prompt says; as many frames as it has, with its aspect.

    frames: an array [F,H,W,3], or an iterable of such pieces, as `generate` makes them: float in [-1, 1] or uint8.
        They are read once, and never all at a time.
    seed: 0 .. 2**32 - 1; the same seed, settings and device give the same video.
    profile: 'paper' or 'release', how frames are enlarged and chunks blended; the model's own for None.
    decode_frames: frames encoded or decoded at once; bounds memory, changes nothing else.
    folder: where the latents of the video lie as temporary files while it is worked on, about 1 MB a frame of 1280x720.
    on_step: called as on_step(step, steps) after every denoising step, which is one of the whole video.
    settings: of `RefineSettings`, such as steps=20, variant='B+S', guidance=5.0.

    Returns an iterator over float32 arrays [n,h,w,3] in [-1, 1], of the size that `enhancer.canvas` says. The first one
    comes when the last step is done.
    Raises ValueError at once for an empty prompt or an impossible setting, and later for frames of another form.
    """
    check([prompt], [seed])
    profile = enhancer.config.profile if profile is None else profile
    if profile not in blend.BLENDING:
        raise ValueError(f'profile is one of {blend.BLENDING}, not {profile!r}')
    if decode_frames < 1:
        raise ValueError(f'at least 1 frame is decoded at once, not {decode_frames}')
    chosen = enhancer.settings(**{'variant': profile} | settings)
    # As the release words it: the Refiner was sampled with the prompt and a comma.
    ids = enhancer.tokenizer.ids([negative_prompt, f'{prompt}, '])
    keys = blend.split_keys(jax.random.key(seed)[None])
    told = None if on_step is None else lambda progress, steps: on_step(progress.done, steps)
    pieces = _pieces([frames] if isinstance(frames, np.ndarray) else frames, decode_frames)

    def enhanced():
        with tempfile.TemporaryDirectory(prefix='st2v-', dir=folder, ignore_cleanup_errors=True) as scratch:
            latents, canvas = _encoded(enhancer, profile, pieces, scratch)
            count = latents.shape[1]
            job = enhancer.job(chosen, encode_texts(enhancer, ids), keys)
            progress = sdedit.begin(job, latents, folder=scratch)
            latents = sdedit.refine(job, progress, count, folder=scratch, on_step=told)
            size = min(count, decode_frames)
            for first in range(0, count, size):
                piece = latents[0, first : first + size]
                frames = decode_latents(enhancer, _padded(piece, size), canvas=canvas)
                yield np.asarray(frames[: len(piece)])

    return enhanced()


def _pieces(frames, size):
    """The frames of an iterable of arrays [n,H,W,3], `size` at a time; the last piece is what is left."""
    waiting, shape = [], None
    for some in frames:
        if np.ndim(some) != 4 or np.shape(some)[1:] != (shape or (*np.shape(some)[1:3], 3)):
            raise ValueError(f'frames are arrays [n,H,W,3] of one size, not {np.shape(some)}')
        shape = np.shape(some)[1:]
        for frame in np.asarray(some):
            waiting.append(frame)
            if len(waiting) == size:
                yield np.stack(waiting)
                waiting = []
    if waiting:
        yield np.stack(waiting)


def _padded(piece, size):
    """The piece with its last frame repeated, so that one compiled program does for all."""
    return np.pad(piece, [(0, size - len(piece))] + [(0, 0)] * (piece.ndim - 1), mode='edge')


def _encoded(enhancer, profile, pieces, folder):
    """Latents [1,F,h,w,c] of a video, as a file in `folder`, and the Canvas of its frames."""
    count, canvas = 0, None
    with open(Path(folder, 'latents'), 'wb') as file:
        for piece in pieces:
            if canvas is None:
                size, canvas = len(piece), enhancer.canvas(piece.shape[1:3])
            latents = encode_frames(enhancer, _padded(piece, size), canvas=canvas, profile=profile)
            file.write(np.asarray(latents[: len(piece)]))
            count += len(piece)
    if canvas is None:
        raise ValueError('a video has at least 1 frame, not 0')
    return np.memmap(file.name, np.float32, 'r', shape=(1, count, *latents.shape[1:])), canvas


@jax.jit
def encode_texts(enhancer: Enhancer, ids: jax.Array) -> list[KeysValues]:
    """Keys and values of the texts [unconditional, conditional] with token ids [2,t], for all steps."""
    params = enhancer.params
    return enhancer.refiner.unet(params['refiner'], enhancer.text(params['text'], ids), method='keys_values')


@functools.partial(jax.jit, static_argnames=('canvas', 'profile'))
def encode_frames(enhancer: Enhancer, frames: jax.Array, *, canvas: Canvas, profile: str) -> jax.Array:
    """Scaled latents [n,h,w,c] of frames [n,H,W,3], uint8 or float in [-1, 1], placed on the canvas."""
    if frames.dtype == jnp.uint8:
        frames = to_floats(frames)
    mean, _ = enhancer.vae(enhancer.params['vae'], to_canvas(frames, canvas, profile), method='encode')
    return mean * enhancer.config.scale_factor


@functools.partial(jax.jit, static_argnames='canvas')
def decode_latents(enhancer: Enhancer, latents: jax.Array, *, canvas: Canvas) -> jax.Array:
    """Frames [n,H,W,3] in [-1, 1] of scaled latents [n,h,w,c], without the padding around them."""
    frames = enhancer.vae(enhancer.params['vae'], latents / enhancer.config.scale_factor, method='decode')
    return jnp.clip(crop(frames, canvas), -1, 1)
