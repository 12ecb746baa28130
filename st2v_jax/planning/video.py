"""What a video will take before anything is loaded: parameters, and time and memory of each stage."""

import dataclasses
import math
import os
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from st2v_jax import weights
from st2v_jax.cost import Cost, Rates, cost
from st2v_jax.diffusion import sampling
from st2v_jax.diffusion.schedule import sampling_levels
from st2v_jax.models import build
from st2v_jax.refinement import blend
from st2v_jax.refinement import sdedit as refine
from st2v_jax.refinement.enhancer import Enhancer, enhancer_of, parts
from st2v_jax.streaming import stream
from st2v_jax.streaming.generate import Model, default_dtype


@dataclass(frozen=True)
class Stage:
    """A program of the sampler, what one run of it costs, and how often it runs.

    ahead: whether the host starts the next run while the device is at work on this one.
    """

    name: str
    cost: Cost
    repeats: int
    ahead: bool = False

    def seconds(self, rates: Rates) -> float:
        """Of one run."""
        device, host = self.cost.seconds(rates), self.cost.handed * rates.argument
        return max(device, host) if self.ahead else device + host


def abstract_model(folder=None, dtype=None) -> Model:
    """What `text_to_video.load` gives, with shapes for parameters and without a tokenizer; nothing is read."""
    config, networks = weights.describe(weights.SHIPPED if folder is None else folder)
    dtype = default_dtype() if dtype is None else dtype
    return Model(config, None, _held(config, networks, dtype), stream.system(config, dtype))


def abstract_enhancer(folder=None, dtype=None) -> Enhancer:
    """The same of `video_to_video.load_enhancer`, for one device."""
    config, networks = weights.describe_refinement(weights.SHIPPED if folder is None else folder)
    dtype = default_dtype() if dtype is None else dtype
    return enhancer_of(config, _held(config, networks, dtype), dtype)


def _held(config, networks, dtype):
    """Shapes of the parameters as they lie on the device."""
    held = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype if leaf.ndim > 1 else jnp.float32)
    return jax.tree.map(held, weights.abstract(config, networks))


def stages(
    model: Model, settings: stream.SampleSettings, num_frames: int, enhancer: Enhancer | None = None
) -> list[Stage]:
    """The stages of a video of num_frames, and of its enhancement as st2v sample does it where there is an enhancer.

    model, enhancer: as `abstract_model` and `abstract_enhancer` give them.
    """
    found = _streaming(model, settings, num_frames)
    if enhancer is not None:
        side = model.config.image_size
        found += refinement(enhancer, enhancer.settings(variant=settings.profile), (side, side), num_frames,
                            profile=settings.profile, decode_frames=settings.decode_frames)
    return found


def refinement(
    enhancer: Enhancer, settings: refine.RefineSettings, size, num_frames: int, *, profile, decode_frames
) -> list[Stage]:
    """The stages of `enhance` for num_frames frames of `size` (height, width) pixels."""
    params, piece = enhancer.params, min(num_frames, decode_frames)
    condition, encode, decode = parts(enhancer, enhancer.canvas(size), profile)
    ids = jax.ShapeDtypeStruct((2, enhancer.config.text.max_tokens), jnp.int32)
    frames = jax.ShapeDtypeStruct((piece, *size, 3), jnp.float32)
    latents = jax.eval_shape(encode, params, frames)
    keys = jax.eval_shape(lambda: blend.split_keys(jax.random.key(0)[None]))
    step, arguments, runs = refine.program(
        enhancer.refiner, settings, params['refiner'], jax.eval_shape(condition, params, ids), keys,
        (1, num_frames, *latents.shape[1:]),
    )
    pieces = math.ceil(num_frames / piece)
    return [
        Stage('refining, prompt', cost(condition, params, ids), 1),
        Stage('refining, encoding', cost(encode, params, frames), pieces),
        Stage('refining, step', cost(step, *arguments), runs * settings.steps),
        Stage('refining, decoding', cost(decode, params, latents), pieces),
    ]


def _streaming(model, settings, num_frames):
    system, params = model.system, model.params
    ids = jax.ShapeDtypeStruct((1, model.config.text.max_tokens), jnp.int32)
    encode = lambda params, ids: stream.encode_prompt(system, params, ids, ids)
    found = [Stage('prompt', cost(encode, params, ids), 1)]
    context = jax.eval_shape(encode, params, ids)
    state = jax.eval_shape(lambda: stream.start(jax.random.key(0)))
    chunks = stream.chunk_count(model.config, num_frames)
    begin, step, end = stream.parts(system, settings)
    of_chunk = {'first chunk': (1, settings.first_solver, settings.first_steps)}
    if chunks > 1:
        of_chunk['later chunk'] = chunks - 1, settings.solver, settings.steps
    for name, (count, solver, steps) in of_chunk.items():
        x, condition = jax.eval_shape(begin, params, context, state)
        levels = sampling_levels(model.config.diffusion, solver, steps)
        inputs = jax.tree.map(lambda leaf: leaf[0], sampling.steps(levels))
        trajectory = jax.eval_shape(lambda x, levels=levels: sampling.begin(x, levels), x)
        found += [
            Stage(f'{name}, condition', cost(begin, params, context, state), count),
            Stage(f'{name}, step', cost(step, params, condition, state, trajectory, inputs), count * steps, ahead=True),
            Stage(f'{name}, decoding', cost(end, params, x, state), count),
        ]
        _, state = jax.eval_shape(end, params, x, state)
    return found


def resident(*models: Model | Enhancer) -> int:
    """Bytes of the parameters, which stay on the device."""
    return sum(leaf.size * leaf.dtype.itemsize for model in models for leaf in jax.tree.leaves(model.params))


def peak(found: list[Stage], *models: Model | Enhancer) -> int:
    """Bytes on the device at most: all parameters, and the arrays of the stage that holds most."""
    return resident(*models) + max(stage.cost.temporary for stage in found)


def device_memory() -> int | None:
    """Bytes that the device has for us, None where it does not say."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and 'bytes_limit' in stats:
        return stats['bytes_limit']
    if jax.default_backend() == 'cpu' and hasattr(os, 'sysconf'):
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return None


# Option of the command line -> what it changes in the settings
SAVING = {'--decode-frames 1': {'decode_frames': 1}, '--profile release': {'profile': 'release'}}


def remedies(
    model: Model, settings: stream.SampleSettings, num_frames: int, limit: int, enhancer: Enhancer | None = None
) -> list[str]:
    """The fewest options that bring the peak of `stages` below `limit` bytes; [] where none do."""
    models = [one for one in (model, enhancer) if one is not None]
    changes = [{name: change} for name, change in SAVING.items()] + [SAVING]
    for change in changes:
        merged = {name: value for one in change.values() for name, value in one.items()}
        less = dataclasses.replace(settings, **merged)
        if less != settings and peak(stages(model, less, num_frames, enhancer), *models) <= limit:
            return list(change)
    return []


def parameters(*models: Model | Enhancer) -> dict[str, int]:
    """network -> number of parameters; an Enhancer has a `vae` and a `text` of its own, also where they are equal."""
    found = {}
    for model in models:
        own = isinstance(model, Enhancer)
        for name, tree in model.params.items():
            found[f'refiner_{name}' if own and name != 'refiner' else name] = build.parameter_count(tree)
    return found
