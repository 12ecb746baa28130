"""Real clips for the denoising objective: cut on the host while the step before runs, encoded in the step.

Unlike the pool of the small world, they do not fit on a device. Clips that hold latents and text embeddings spare the
step these networks, as long as they are those that it would run.
"""

import threading
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from st2v_jax import sharding
from st2v_jax.data import encoding
from st2v_jax.data.prepare import fit
from st2v_jax.data.sources import open_source

_TOKENIZING = threading.Lock()  # tokenizers are made for one thread, and so is the import of theirs


class Clips(NamedTuple):
    """A batch of clips; what a stage does not read is None.

    Attributes:
      pixels: [b,f,H,W,3] uint8; where there are latents, of the conditioning frames only.
      ids: [b,77] token ids.
      anchor: [b,H,W,3] uint8, that frame.
      latents: [b,f,h,w,c] float16, scaled.
      text: [b,77,c] float16, text embeddings.
    """

    pixels: Any
    ids: Any
    anchor: Any = None
    latents: Any = None
    text: Any = None


def feed(config, model, params, tokenizer, mesh, fixed):
    """(A function: number of a step -> iterator over the Clips of that step and of those after it; spared).

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
    make = partial(cut, frames=model.frames, anchored=config.anchor, size=model.frame_size, tokenizer=tokenizer,
                   shown=pixel_frames(config, model) if 'vae' in spared else model.frames, spared=spared)
    if len(source):
        make(source[0], np.random.default_rng(0))  # clips that are too short are refused before anything is compiled
    where = sharding.split_rows(mesh)
    slices = where.addressable_devices_indices_map((config.batch_size,)).values()
    rows = sorted({row for (piece,) in slices for row in range(*piece.indices(config.batch_size))})

    def place(leaf):
        shape = (config.batch_size, *leaf.shape[1:])
        return jax.make_array_from_process_local_data(where, leaf, shape)

    def start(number):
        read = batches(source, make, batch_size=config.batch_size, seed=data.seed, start=number, rows=rows,
                       workers=data.workers)
        return (jax.tree.map(place, batch) for batch in read)

    return start, spared


def pixel_frames(config, model):
    """How many frames of a chunk, the first ones, condition as pixels: none where noisy latents are decoded instead."""
    return model.conditioning_frames if config.memory and not config.conditioning_noise else 0


def _check_encoding(source, model, params, tokenizer, spared):
    ours, theirs = encoding.fingerprint(model, params, tokenizer), source.encoded
    names = {'vae': 'autoencoder', 'text': 'text tower'}
    other = ' and '.join(names[name] for name in names if name in spared and ours[name] != theirs[name])
    if other:
        raise ValueError(f'the clips were encoded by another {other} than this run starts from: prepare them again, '
                         'with --encode and the weights that --from names')
    size = source.settings['size']
    if 'vae' in spared and tuple(size) != model.frame_size:
        raise ValueError(f'latents cannot be resized: the clips hold those of frames of {size} pixels, the model has '
                         f'{model.frame_size}')


def cut(clip, random, *, frames, anchored, size, tokenizer, shown, spared=frozenset()) -> Clips:
    """What a step sees of a clip: a window of successive frames, chosen as `denoising.windows` chooses in a pool.

    shown: of how many of them, the first ones, it sees the pixels.
    """
    needed = 2 * frames if anchored else frames
    if len(clip) < needed:
        raise ValueError(f'samples of {len(clip)} frames are too short: this stage needs {needed}')
    first = int(random.integers(len(clip) - needed + 1))
    window = first + needed - frames + np.arange(frames)
    numbers = window[:shown]
    if anchored:
        numbers = np.append(numbers, first + random.integers(frames))
    pixels = clip.frames(numbers) if len(numbers) else ()
    pixels = [frame if frame.shape[:2] == size else fit(frame, size) for frame in pixels]
    with _TOKENIZING:
        ids = tokenizer.ids([clip.caption])[0]
    return Clips(
        pixels=np.stack(pixels[:shown]) if shown else None,
        ids=ids,
        anchor=pixels[shown] if anchored else None,
        latents=clip.latents(window) if 'vae' in spared else None,
        text=clip.text() if 'text' in spared else None,
    )
