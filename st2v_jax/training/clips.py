"""Real clips for the denoising objective: read on the host while the previous step runs, encoded in the step.

Unlike the pool of the small world, they do not fit on a device. If the clips hold latents or text embeddings that the
networks of this run have made, the step need not run them. The anchor frame is taken from the pixels of the clip, and
so are the conditioning frames, unless noise is added to them.
"""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from st2v_jax import sharding
from st2v_jax.data import encoding
from st2v_jax.data.prepare import resize_and_crop
from st2v_jax.data.sources import open_source
from st2v_jax.models import build
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.clip import preprocess
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training.batch import Batch, Data, corrupted, each_frame, window
from st2v_jax.training.objective import Params
from st2v_jax.video_io import to_floats

_TOKENIZING = threading.Lock()  # tokenizers, and the import of their library, are not safe in several threads


class Clips(NamedTuple):
    """A batch of clips as it is read; what a stage does not need is None.

    Attributes:
      pixels: [b, f, H, W, 3] uint8; if there are latents, only of the conditioning frames.
      ids: [b, 77] token ids.
      anchor: [b, H, W, 3] uint8, the anchor frame.
      latents: [b, f, h, w, c] float16, scaled.
      text: [b, 77, c] float16, text embeddings.
    """

    pixels: jax.Array | None
    ids: jax.Array
    anchor: jax.Array | None = None
    latents: jax.Array | None = None
    text: jax.Array | None = None


class RawBatch(NamedTuple):
    """The examples of a step before they are encoded; `encode` turns them into a Batch.

    Attributes:
      pixels: [b, f, H, W, 3] uint8, the frames to denoise; None if there are latents.
      latents: [b, f, h, w, c] float16, scaled; None if there are pixels.
      ids: as in a Batch.
      frames: [b, m, H, W, 3], the conditioning frames in [-1, 1]; None without memory, and if there is noise.
      noise: [b, m, h, w, c], the noise for the latents that conditioning frames are decoded from, or None.
      anchor: [b, H, W, 3], the anchor frame in [-1, 1], or None.
      mask: as in a Batch.
      text: as in a Batch.
    """

    pixels: jax.Array | None
    latents: jax.Array | None
    ids: jax.Array
    frames: jax.Array | None = None
    noise: jax.Array | None = None
    anchor: jax.Array | None = None
    mask: jax.Array | None = None
    text: jax.Array | None = None


def feed(
    config: ConfigDict, model: ModelConfig, params: Params, tokenizer: Tokenizer, mesh: Mesh, fixed: set[str]
) -> tuple[Callable[[int], Iterator[Data]], frozenset[str]]:
    """Opens the source of clips that the config names.

    Args:
      fixed: those of the networks 'vae' and 'text' that are not trained.

    Returns:
      A function from the number of a step to an iterator over the Data of that step and of later ones, with clips on
      the devices; and those networks in `fixed` that need not run, because the clips hold what they would compute.

    Raises ValueError if there is no such source, or its clips do not fit the stage.
    """
    data = config.data
    sharding.check_rows(config.batch_size, mesh)
    try:
        from st2v_jax.data.batches import batches  # training on the small world does not need Grain

        source = open_source(data.source, data.folder, data.split)
    except ModuleNotFoundError as error:
        raise ValueError(f"reading clips needs {error.name}: pip install 'st2v_jax[train]'") from error
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
        make(
            source[0], np.random.default_rng(0)
        )  # raises an error for clips that are too short before anything is compiled
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


def pixel_frames(config: ConfigDict, model: ModelConfig) -> int:
    """How many of the first frames of a chunk are conditioning frames in pixels; 0 if noisy latents are decoded."""
    return model.conditioning_frames if config.memory and not config.conditioning_noise else 0


def decodes(config: ConfigDict) -> bool:
    """Whether the step decodes the conditioning frames from noisy latents."""
    return config.memory and bool(config.conditioning_noise)


def _check_encoding(source, model, params, tokenizer, spared):
    ours, theirs = encoding.fingerprint(model, params, tokenizer), source.encoded
    names = {'vae': 'autoencoder', 'text': 'text tower'}
    other = ' and '.join(names[name] for name in names if name in spared and ours[name] != theirs[name])
    if other:
        raise ValueError(
            f'the clips were encoded with another {other} than this run starts from: prepare them again, '
            'with the weights of --from as --encode'
        )
    size = tuple(source.settings['size'])
    if 'vae' in spared and size != model.frame_size:
        theirs, ours = (f'{height}x{width}' for height, width in (size, model.frame_size))
        raise ValueError(f'latents cannot be resized: those of the clips are for {theirs} pixels, the model has {ours}')


def cut(
    clip: Any,
    random: np.random.Generator,
    *,
    frames: int,
    anchored: bool,
    size: tuple[int, int],
    tokenizer: Tokenizer,
    shown: int,
    spared: frozenset[str] = frozenset(),
) -> Clips:
    """Cuts a random window of consecutive frames out of a clip, for one example of a batch.

    Args:
      clip: of a source, see data/sources.py.
      random: chooses the window.
      frames: frames of the window.
      anchored: whether there is an anchor frame.
      size: (height, width) of the frames.
      tokenizer: for the caption.
      shown: how many of the first frames are needed as pixels.
      spared: networks whose results are read from the clip.
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


def draw(key: jax.Array, clips: Clips, config: ConfigDict, model: ModelConfig) -> RawBatch:
    """The batch for a key: all clips, and noise for their conditioning frames if the config asks for it."""
    memory, noise = pixel_frames(config, model), None
    if decodes(config):
        # Anchors get no noise: a dropped anchor is exactly grey, which an autoencoder would not reproduce.
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


def encode(batch: RawBatch, params: Params, model: ModelConfig, dtype: jnp.dtype) -> Batch:
    """Encodes the frames and the anchor of a batch, and decodes its conditioning frames from noisy latents."""
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
