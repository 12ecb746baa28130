"""Real clips for the denoising objective: cut on the host while the step before runs, encoded in the step.

Unlike the pool of the small world, they do not fit on a device. Clips that hold latents and text embeddings spare the
step these networks, as long as they are those that it would run. The anchor is the clip's own pixels, and so are
conditioning frames, unless they are to be noisy.
"""

import threading
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax import sharding
from st2v_jax.data import encoding
from st2v_jax.data.prepare import resize_and_crop
from st2v_jax.data.sources import open_source
from st2v_jax.models import build
from st2v_jax.models.clip import preprocess
from st2v_jax.training.batch import Batch, Data, corrupted, each_frame, window
from st2v_jax.video_io import to_floats

_TOKENIZING = threading.Lock()  # tokenizers are made for one thread, and so is the import of theirs


class Clips(NamedTuple):
    """A batch of clips as it is read; what a stage does not read is None.

    Attributes:
      pixels: [b, f, H, W, 3] uint8; where there are latents, of the conditioning frames only.
      ids: [b, 77] token ids.
      anchor: [b, H, W, 3] uint8, that frame.
      latents: [b, f, h, w, c] float16, scaled.
      text: [b, 77, c] float16, text embeddings.
    """

    pixels: jax.Array | None
    ids: jax.Array
    anchor: jax.Array | None = None
    latents: jax.Array | None = None
    text: jax.Array | None = None


class RawBatch(NamedTuple):
    """The examples of a step before they are encoded: `encode` makes a Batch of them.

    Attributes:
      pixels: [b, f, H, W, 3] uint8, the frames to denoise; None where there are latents.
      latents: [b, f, h, w, c] float16, scaled; None where there are pixels.
      ids, mask, text: as in a Batch.
      frames: [b, m, H, W, 3] the conditioning frames in [-1, 1]; None without memory, and where there is noise.
      noise: [b, m, h, w, c] the noise in the latents that conditioning frames are decoded from, or None.
      anchor: [b, H, W, 3] the anchor frame in [-1, 1], or None.
    """

    pixels: jax.Array | None
    latents: jax.Array | None
    ids: jax.Array
    frames: jax.Array | None = None
    noise: jax.Array | None = None
    anchor: jax.Array | None = None
    mask: jax.Array | None = None
    text: jax.Array | None = None


def feed(config, model, params, tokenizer, mesh, fixed):
    """(A function: number of a step -> iterator over the Data of that step and of those after it; spared).

    The clips are on the devices. `spared` are those of the networks in `fixed`, of 'vae' and 'text', whose latents and
    text embeddings the clips hold.
    """
    data = config.data
    sharding.check_rows(config.batch_size, mesh)
    try:
        from st2v_jax.data.batches import batches  # the small world is trained on without Grain

        source = open_source(data.source, data.folder, data.split)
    except ModuleNotFoundError as error:
        raise ValueError(f"clips are read with {error.name}: pip install 'st2v_jax[train]'") from error
    spared = frozenset(fixed) if source.encoded else frozenset()
    if spared:
        _check_encoding(source, model, params, tokenizer, spared)
    make = partial(
        cut,
        frames=model.frames,
        anchored=config.anchor,
        size=model.frame_size,
        tokenizer=tokenizer,
        shown=pixel_frames(config, model) if 'vae' in spared else model.frames,
        spared=spared,
    )
    if len(source):
        make(source[0], np.random.default_rng(0))  # clips that are too short are refused before anything is compiled
    where = sharding.split_rows(mesh)
    slices = where.addressable_devices_indices_map((config.batch_size,)).values()
    rows = sorted({row for (piece,) in slices for row in range(*piece.indices(config.batch_size))})

    def place(leaf):
        shape = (config.batch_size, *leaf.shape[1:])
        return jax.make_array_from_process_local_data(where, leaf, shape)

    ids, text = tokenizer.ids(['']), None
    if 'text' in spared:
        text = np.asarray(jax.jit(partial(encoding.embed, model))({'text': params['text']}, ids)[0])
    empty = ids[0], np.zeros((*model.frame_size, 3), np.float32), text
    empty = sharding.place(empty, sharding.replicated(mesh))

    def start(number):
        read = batches(
            source, make, batch_size=config.batch_size, seed=data.seed, start=number, rows=rows, workers=data.workers
        )
        return (Data(jax.tree.map(place, batch), *empty) for batch in read)

    return start, spared


def pixel_frames(config, model) -> int:
    """How many frames of a chunk, the first ones, condition as pixels: none where noisy latents are decoded instead."""
    return model.conditioning_frames if config.memory and not config.conditioning_noise else 0


def decodes(config) -> bool:
    """Whether conditioning frames are decoded in the step, from noisy latents."""
    return config.memory and bool(config.conditioning_noise)


def _check_encoding(source, model, params, tokenizer, spared):
    ours, theirs = encoding.fingerprint(model, params, tokenizer), source.encoded
    names = {'vae': 'autoencoder', 'text': 'text tower'}
    other = ' and '.join(names[name] for name in names if name in spared and ours[name] != theirs[name])
    if other:
        raise ValueError(
            f'the clips were encoded by another {other} than this run starts from: prepare them again, '
            'with --encode and the weights that --from names'
        )
    size = tuple(source.settings['size'])
    if 'vae' in spared and size != model.frame_size:
        theirs, ours = (f'{height}x{width}' for height, width in (size, model.frame_size))
        raise ValueError(
            f'latents cannot be resized: the clips hold those of frames of {theirs} pixels, the model has {ours}'
        )


def cut(clip, random: np.random.Generator, *, frames, anchored, size, tokenizer, shown, spared=frozenset()) -> Clips:
    """What a step sees of a clip: a window of successive frames.

    shown: of how many of them, the first ones, it sees the pixels.
    """
    start, anchor = window(len(clip), frames, lambda count: int(random.integers(count)), anchored=anchored)
    numbers = start + np.arange(shown)
    if anchored:
        numbers = np.append(numbers, anchor)
    pixels = clip.frames(numbers) if len(numbers) else ()
    pixels = [frame if frame.shape[:2] == size else resize_and_crop(frame, size) for frame in pixels]
    with _TOKENIZING:
        ids = tokenizer.ids([clip.caption])[0]
    return Clips(
        pixels=np.stack(pixels[:shown]) if shown else None,
        ids=ids,
        anchor=pixels[shown] if anchored else None,
        latents=clip.latents(start + np.arange(frames)) if 'vae' in spared else None,
        text=clip.text() if 'text' in spared else None,
    )


def draw(key: jax.Array, clips: Clips, config, model) -> RawBatch:
    """The batch of a key: all clips, and the noise of their conditioning frames if any."""
    memory, noise = pixel_frames(config, model), None
    if decodes(config):
        # Anchors have no noise: one that is dropped is exactly grey, which no autoencoder gives back.
        shape = len(clips.ids), model.conditioning_frames, *model.latent_shape[1:]
        keys = jax.random.split(key, shape[0])
        noise = jax.vmap(partial(corrupted, config.conditioning_noise))(keys, jnp.zeros(shape))
    return RawBatch(
        pixels=clips.pixels if clips.latents is None else None,
        latents=clips.latents,
        ids=clips.ids,
        frames=to_floats(clips.pixels[:, :memory]) if memory else None,
        noise=noise,
        anchor=None if clips.anchor is None else to_floats(clips.anchor),
        text=clips.text,
    )


def encode(batch: RawBatch, params, model, dtype) -> Batch:
    """The batch with latents, the anchor's embedding and noisy conditioning frames in place of pixels and noise."""
    autoencoder = build.vae(model, dtype)
    latents, frames, anchor = batch.latents, batch.frames, batch.anchor
    if latents is None:
        latents, _ = each_frame(partial(autoencoder, params['vae'], method='encode'), to_floats(batch.pixels))
        latents *= model.scale_factor
    latents = latents.astype(jnp.float32)
    if batch.noise is not None:
        seen = latents[:, : batch.noise.shape[1]] + batch.noise
        frames = each_frame(partial(autoencoder, params['vae'], method='decode'), seen / model.scale_factor)
        frames = jnp.clip(frames, -1, 1)
    if anchor is not None:
        anchor = build.image_tower(model, dtype)(params['image'], preprocess(anchor, model.image.image_size))
    return Batch(latents, batch.ids, frames, anchor, batch.mask, batch.text)
