"""What a video will take, computed before anything is loaded: parameters, and time and memory of each stage."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from st2v_jax.cost import Cost, cost
from st2v_jax.devices import default_dtype
from st2v_jax.diffusion import sampling
from st2v_jax.models import build
from st2v_jax.models.system import encode_prompt, system
from st2v_jax.open_model import OpenModel, open_model
from st2v_jax.planning.device import Rates
from st2v_jax.refinement import blend, sdedit
from st2v_jax.refinement.enhancer import Enhancer, decode_latents, encode_frames, encode_texts, enhancer_of
from st2v_jax.streaming import stream
from st2v_jax.streaming.generate import Model
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.weights.layout import abstract


@dataclass(frozen=True)
class Stage:
    """A program of the sampler, what one run of it costs, and how often it runs.

    Attributes:
      ahead: whether the host starts the next run while the device still works on this one.
    """

    name: str
    cost: Cost
    repeats: int
    ahead: bool = False

    def seconds(self, rates: Rates) -> float:
        """Seconds of one run."""
        device, host = rates.program_seconds(self.cost), self.cost.passed * rates.argument
        return max(device, host) if self.ahead else device + host


def abstract_model(folder: str | Path | OpenModel | None = None, dtype: DTypeLike | None = None) -> Model:
    """The Model that `load` returns, but with shapes for parameters, which are not read, and without a tokenizer."""
    model = open_model(folder)
    dtype = default_dtype() if dtype is None else dtype
    return Model(model.config, None, _held(model.config, model.networks, dtype), system(model.config, dtype))


def abstract_enhancer(folder: str | Path | OpenModel | None = None, dtype: DTypeLike | None = None) -> Enhancer:
    """The Enhancer that `load_enhancer` returns for one device, but with shapes for parameters and no tokenizer."""
    model = open_model(folder)
    dtype = default_dtype() if dtype is None else dtype
    return enhancer_of(model.config, _held(model.config, model.refinement, dtype), dtype)


def _held(config, networks, dtype):
    """The parameters as shapes, in the dtypes that they have on the device."""
    held = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype if leaf.ndim > 1 else jnp.float32)
    return jax.tree.map(held, abstract(config, networks))


def stages(model: Model, settings: SampleSettings, num_frames: int, enhancer: Enhancer | None = None) -> list[Stage]:
    """The stages of a video of num_frames frames, and with an enhancer also those of `st2v sample --enhance`.

    model and enhancer are as from `abstract_model` and `abstract_enhancer`.
    """
    found = _streaming(model, settings, num_frames)
    if enhancer is not None:
        size = model.config.frame_size
        found += refinement(
            enhancer,
            enhancer.settings(variant=settings.profile),
            size,
            num_frames,
            profile=settings.profile,
            decode_frames=settings.decode_frames,
        )
    return found


def refinement(
    enhancer: Enhancer,
    settings: sdedit.RefineSettings,
    size: tuple[int, int],
    num_frames: int,
    *,
    profile: str,
    decode_frames: int,
) -> list[Stage]:
    """The stages of `enhance` for num_frames frames of `size` (height, width) pixels."""
    canvas, piece = enhancer.canvas(size), min(num_frames, decode_frames)
    encoding, decoding = partial(encode_frames, canvas=canvas, profile=profile), partial(decode_latents, canvas=canvas)
    ids = jax.ShapeDtypeStruct((2, enhancer.config.text.max_tokens), jnp.int32)
    frames = jax.ShapeDtypeStruct((piece, *size, 3), jnp.float32)
    latents = jax.eval_shape(encoding, enhancer, frames)
    keys = jax.eval_shape(lambda: blend.split_keys(jax.random.key(0)[None]))
    job = enhancer.job(settings, jax.eval_shape(encode_texts, enhancer, ids), keys)
    step, arguments, runs = sdedit.step_program(job, (1, num_frames, *latents.shape[1:]))
    pieces = math.ceil(num_frames / piece)
    return [
        Stage('refining, prompt', cost(encode_texts, enhancer, ids), 1),
        Stage('refining, encoding', cost(encoding, enhancer, frames), pieces),
        Stage('refining, step', cost(step, *arguments), runs * settings.steps),
        Stage('refining, decoding', cost(decoding, enhancer, latents), pieces),
    ]


def _streaming(model, settings, num_frames):
    system, params = model.system, model.params
    ids = jax.ShapeDtypeStruct((1, model.config.text.max_tokens), jnp.int32)
    encode = lambda params, ids: encode_prompt(system, params, ids, ids)
    found = [Stage('prompt', cost(encode, params, ids), 1)]
    prompt = jax.eval_shape(encode, params, ids)
    state = jax.eval_shape(lambda: stream.start(jax.random.key(0)[None]))
    chunks = model.config.contract.chunks(num_frames)
    run = stream.programs(system, settings)
    counts = {'first chunk': 1} | ({'later chunk': chunks - 1} if chunks > 1 else {})
    for name, count in counts.items():
        x, condition = jax.eval_shape(run.begin, params, prompt, state)
        levels = stream.levels_of(system, settings, state)
        steps = len(levels.t) - 1
        inputs = jax.tree.map(lambda leaf: leaf[0], sampling.steps(levels))
        latents = jax.eval_shape(partial(stream.new_latents, system), x, state)
        frames = jax.eval_shape(run.decode, params, latents)
        trajectory = jax.eval_shape(lambda x, levels=levels: sampling.begin(x, levels), x)
        found += [
            Stage(f'{name}, condition', cost(run.begin, params, prompt, state), count),
            Stage(
                f'{name}, step', cost(run.step, params, condition, state, trajectory, inputs), count * steps, ahead=True
            ),
            Stage(f'{name}, decoding', cost(run.decode, params, latents), count),
            Stage(f'{name}, memory', cost(run.remember, params, frames, state), count),
        ]
        state = jax.eval_shape(run.remember, params, frames, state)
    return found


def resident(*models: Model | Enhancer) -> int:
    """Bytes of the parameters, which stay on the device."""
    return sum(leaf.size * leaf.dtype.itemsize for model in models for leaf in jax.tree.leaves(model.params))


def peak(found: list[Stage], *models: Model | Enhancer) -> int:
    """The most bytes on the device: all parameters, and the arrays of the stage that needs most."""
    return resident(*models) + max(stage.cost.temporary for stage in found)


# Option of the command line -> what it changes in the settings
SAVING = {'--decode-frames 1': {'decode_frames': 1}, '--profile release': {'profile': 'release'}}


def remedies(
    model: Model, settings: SampleSettings, num_frames: int, limit: int, enhancer: Enhancer | None = None
) -> list[str]:
    """The fewest options that bring the peak of `stages` below `limit` bytes; [] if none do."""
    models = [one for one in (model, enhancer) if one is not None]
    changes = [{name: change} for name, change in SAVING.items()] + [SAVING]
    for change in changes:
        merged = {name: value for one in change.values() for name, value in one.items()}
        less = dataclasses.replace(settings, **merged)
        if less != settings and peak(stages(model, less, num_frames, enhancer), *models) <= limit:
            return list(change)
    return []


def parameters(*models: Model | Enhancer) -> dict[str, int]:
    """{network: number of parameters}; an Enhancer's `vae` and `text` count again, even if they are the model's."""
    found = {}
    for model in models:
        own = isinstance(model, Enhancer)
        for name, tree in model.params.items():
            found[f'refiner_{name}' if own and name != 'refiner' else name] = build.parameter_count(tree)
    return found
