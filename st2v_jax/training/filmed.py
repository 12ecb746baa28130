"""Real clips for the denoising objective: cut on the host while the step before runs, encoded in the step.

Unlike the pool of the small world, they do not fit on a device, and none is seen often enough to encode it beforehand.
"""

import threading
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from st2v_jax import sharding
from st2v_jax.data.prepare import fit
from st2v_jax.data.sources import open_source

_TOKENIZING = threading.Lock()  # tokenizers are made for one thread, and so is the import of theirs


class Clips(NamedTuple):
    """A batch of clips: pixels [b,f,H,W,3] uint8, ids [b,77], and, with an anchor, that frame [b,H,W,3] uint8."""

    pixels: Any
    ids: Any
    anchor: Any = None


def feed(config, model, tokenizer, mesh):
    """A function: number of a step -> iterator over the Clips of that step and of those after it, on the devices."""
    data = config.data
    sharding.check_rows(config.batch_size, mesh)
    try:
        from st2v_jax.data.batches import batches  # the small world is trained on without Grain

        source = open_source(data.source, data.folder, data.split)
    except ModuleNotFoundError as error:
        raise ValueError(f"clips are read with {error.name}: pip install 'st2v_jax[train]'") from error
    make = partial(cut, frames=model.frames, anchored=config.anchor, size=model.image_size, tokenizer=tokenizer)
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

    return start


def cut(clip, random, *, frames, anchored, size, tokenizer) -> Clips:
    """What a step sees of a clip: a window of successive frames, chosen as `denoising.windows` chooses in a pool."""
    needed = 2 * frames if anchored else frames
    if len(clip) < needed:
        raise ValueError(f'samples of {len(clip)} frames are too short: this stage needs {needed}')
    first = int(random.integers(len(clip) - needed + 1))
    numbers = first + needed - frames + np.arange(frames)
    if anchored:
        numbers = np.append(numbers, first + random.integers(frames))
    pixels = np.stack([frame if frame.shape[:2] == (size, size) else fit(frame, size)
                       for frame in clip.frames(numbers)])
    with _TOKENIZING:
        ids = tokenizer.ids([clip.caption])[0]
    return Clips(pixels[:frames], ids, pixels[frames] if anchored else None)
