"""The CLIP score as an instrument: any folder of weights with both towers of one CLIP."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax.devices import default_dtype
from st2v_jax.errors import BadInput
from st2v_jax.evaluation.instruments import Instrument, View, means
from st2v_jax.metrics.drift import drift
from st2v_jax.metrics.embeddings import cosines, text_scores
from st2v_jax.models import build
from st2v_jax.models.clip import preprocess
from st2v_jax.open_model import on_device, open_model
from st2v_jax.video_io import to_floats

TOWERS = ('text', 'image')
BATCH = 8  # frames at a time; one shape, so that the tower is compiled once


def instrument(folder: str | Path, dtype: str | None = None) -> Instrument:
    """The instrument with the towers of a model.

    Its numbers: 'clip', 100 x the cosine of frame and prompt, averaged over frames; 'clip_drift', its end against its
    beginning; 'clip_next' and 'clip_first', cosines of frames with the next and with the first frame.

    Args:
      folder: weights, as `open_model` takes them.
      dtype: that the towers compute in; None is that of the device.

    Raises:
      BadInput: if the two towers are not there, or do not share a space.
    """
    opened = open_model(folder)
    config, dtype = opened.config, jnp.dtype(dtype or default_dtype())
    missing = [name for name in TOWERS if name not in opened.held or getattr(config, name) is None]
    if missing:
        raise BadInput(
            f'the CLIP score needs a text and an image tower, and {folder} has no {" and no ".join(missing)}'
        )
    widths = {name: getattr(config, name).embed_dim for name in TOWERS}
    if widths['text'] is None or len(set(widths.values())) > 1:
        own = 'none' if widths['text'] is None else f'one of {widths["text"]} numbers'
        raise BadInput(
            f'the CLIP score needs text and images in one space: the text tower of {folder} projects to {own}, '
            f'the image tower to one of {widths["image"]}'
        )
    tokenizer = opened.tokenizer()
    params = opened.params(TOWERS, place=on_device(dtype))
    text, image = build.text_tower(config, dtype), build.image_tower(config, dtype)

    @jax.jit
    def embed_text(params, ids):
        return text(params['text'], ids, method='embed').astype(jnp.float32)

    @jax.jit
    def embed(params, frames):
        return image(params['image'], preprocess(to_floats(frames), config.image.image_size)).astype(jnp.float32)

    def embedded(frames):
        parts = []
        for start in range(0, len(frames), BATCH):
            part = frames[start : start + BATCH]
            padded = np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), 0)])
            parts.append(np.asarray(embed(params, padded))[: len(part)])
        return np.concatenate(parts)

    def begin(prompt):
        wanted, known = np.asarray(embed_text(params, tokenizer.ids([prompt])))[0], {}

        def look(view: View):
            found = embedded(view.frames)
            first = known.setdefault('first', found[0])
            before = [known['last']] if 'last' in known else []
            known['last'] = found[-1]
            row = np.stack([*before, *found])
            return {
                'clip': text_scores(found, wanted),
                'clip_first': cosines(found, first),
                'clip_next': cosines(row[:-1], row[1:]),
            }

        return look

    return Instrument(
        'clip',
        begin,
        lambda curves: means(curves) | {'clip_drift': drift(curves['clip'])['drift']},
        modules=(),
        needs_prompt=True,
        about={'weights': str(folder), 'dtype': dtype.name},
    )
