"""One guided denoising step of weights that were never run here, in float32 and in bfloat16: is it finite in both, and
how far apart are they?

The step is the noisiest one, of the first chunk and of a later one. Noise and remembered frames are random but seeded,
and the same in both precisions; text tower, image tower and autoencoder compute in the precision of the step.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax.convert.assembly import assemble
from st2v_jax.convert.sources import find
from st2v_jax.diffusion import sampling
from st2v_jax.models.system import encode_image, encode_prompt
from st2v_jax.open_model import OpenModel
from st2v_jax.planning.video import abstract_model, peak, resident, stages
from st2v_jax.streaming import stream
from st2v_jax.streaming.generate import Model, load

DTYPES = ('float32', 'bfloat16')  # the first is what the second is compared with
PROMPT = 'a red ball over the sea'
SEED = 0


@dataclass(frozen=True)
class Need:
    """Bytes on the device: of the parameters, and of the arrays of a step at most."""

    resident: int
    temporary: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.resident + self.temporary


def open_all(sources: Iterable[str | Path]) -> OpenModel:
    """The model that several published places make together; what comes later takes precedence, as for st2v convert."""
    sources = list(sources)
    return OpenModel(', '.join(map(str, sources)), assemble([find(source) for source in sources]))


def needs(opened: OpenModel) -> dict[str, Need]:
    """What `one_step` takes in each of `DTYPES`; nothing is read or computed. They do not add up: one comes after the
    other.
    """
    found = {}
    for name in DTYPES:
        model = abstract_model(opened, jnp.dtype(name))
        run = stages(model, model.settings(), model.config.contract.frames_after(2))
        run = [stage for stage in run if not stage.name.endswith('decoding')]  # one_step decodes nothing
        found[name] = Need(resident(model), peak(run, model) - resident(model))
    return found


def one_step(opened: OpenModel, dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """{'first chunk' and 'later chunk': {'prediction': clean latents, 'latents': what the step makes of the noise}}.

    Float32 computes its products in full precision, also where a device rounds their factors unless it is told.
    """
    rounds = dtype == 'float32' and jax.default_backend() != 'cpu'
    with jax.default_matmul_precision('highest' if rounds else None):
        model = load(opened, jnp.dtype(dtype))
        return {name: _step(model, *inputs) for name, inputs in _inputs(model).items()}


def _inputs(model: Model) -> dict[str, tuple]:
    """{chunk: (context, state)}."""
    ids, null_ids = model.tokenizer.ids([PROMPT]), model.tokenizer.ids([''])
    context = encode_prompt(model.system, model.params, ids, null_ids)
    first = stream.start(stream.video_keys([SEED]))
    contract = model.config.contract
    shape = (1, contract.memory, *contract.frame_size, 3)
    # Smooth, as pictures are: white noise is what no encoder was made for.
    coarse = jax.random.uniform(jax.random.key(SEED), (*shape[:2], 8, 8, 3), minval=-1, maxval=1)
    frames = jax.image.resize(coarse, shape, 'linear')
    anchor = encode_image(model.system, model.params, frames[:, 0])
    return {
        'first chunk': (context, first),
        'later chunk': (context, stream.StreamState(frames, anchor, first.key, jnp.int32(1))),
    }


def _step(model, context, state):
    settings = model.settings()
    run, levels = stream.programs(model.system, settings), stream.levels_of(model.system, settings, state)
    x, condition = run.begin(model.params, context, state)
    inputs = jax.tree.map(lambda leaf: leaf[0], sampling.steps(levels))
    after = run.step(model.params, condition, state, sampling.begin(x, levels), inputs)
    return {'prediction': np.asarray(after.x0, np.float32), 'latents': np.asarray(after.x, np.float32)}


def compare(
    opened: OpenModel, dtypes: Iterable[str] = DTYPES, on_dtype: Callable[[str], None] = lambda name: None
) -> dict[str, dict[str, Any]]:
    """{chunk: {'finite': {dtype: whether all numbers are}, 'apart': {'prediction': ..., 'latents': ...}}}, JSON values.

    apart: the norm of the difference over that of float32; None where one of them is not finite or not computed.
    on_dtype: receives each of `dtypes` before it is loaded.
    """
    made = {}
    for name in dtypes:
        on_dtype(name)
        made[name] = one_step(opened, name)
    found = {}
    for chunk, parts in next(iter(made.values())).items():
        of = {name: chunks[chunk] for name, chunks in made.items()}
        found[chunk] = {
            'finite': {name: all(bool(np.isfinite(a).all()) for a in arrays.values()) for name, arrays in of.items()},
            'apart': {part: _apart(*(of[name][part] for name in DTYPES if name in of)) for part in parts},
        }
    return found


def _apart(exact, other=None):
    if other is None or not (np.isfinite(exact).all() and np.isfinite(other).all()):
        return None
    norm = float(np.linalg.norm(exact.astype(np.float64)))
    return float(np.linalg.norm((other - exact).astype(np.float64))) / norm if norm else None
