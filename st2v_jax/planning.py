"""What a video will take before anything is loaded: parameters, and time and memory of each stage."""

import dataclasses
import os
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from st2v_jax import weights
from st2v_jax.cost import Cost, Rates, cost
from st2v_jax.diffusion import sampling
from st2v_jax.diffusion.schedule import sampling_levels
from st2v_jax.models import build
from st2v_jax.streaming import stream
from st2v_jax.text_to_video import Model, default_dtype


@dataclass(frozen=True)
class Stage:
    """A program of the sampler, what one run of it costs, and how often it runs."""

    name: str
    cost: Cost
    repeats: int

    def seconds(self, rates: Rates) -> float:
        """Of one run."""
        return self.cost.seconds(rates)


def abstract_model(folder=None, dtype=None) -> Model:
    """What `text_to_video.load` gives, with shapes for parameters and without a tokenizer; nothing is read."""
    config, networks = weights.describe(weights.SHIPPED if folder is None else folder)
    dtype = default_dtype() if dtype is None else dtype
    held = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype if leaf.ndim > 1 else jnp.float32)
    params = jax.tree.map(held, weights.abstract(config, networks))
    return Model(config, None, params, stream.system(config, dtype))


def stages(model: Model, settings: stream.SampleSettings, num_frames: int) -> list[Stage]:
    """The stages of a video of num_frames; model as `abstract_model` gives it."""
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
            Stage(f'{name}, step', cost(step, params, condition, state, trajectory, inputs), count * steps),
            Stage(f'{name}, decoding', cost(end, params, x, state), count),
        ]
        _, state = jax.eval_shape(end, params, x, state)
    return found


def resident(model: Model) -> int:
    """Bytes of the parameters, which stay on the device."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(model.params))


def peak(model: Model, found: list[Stage]) -> int:
    """Bytes on the device at most: all parameters, and the arrays of the stage that holds most."""
    return resident(model) + max(stage.cost.temporary for stage in found)


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


def remedies(model: Model, settings: stream.SampleSettings, num_frames: int, limit: int) -> list[str]:
    """The fewest options that bring the peak below `limit` bytes; [] where none do."""
    changes = [{name: change} for name, change in SAVING.items()] + [SAVING]
    for change in changes:
        merged = {name: value for one in change.values() for name, value in one.items()}
        less = dataclasses.replace(settings, **merged)
        if less != settings and peak(model, stages(model, less, num_frames)) <= limit:
            return list(change)
    return []


def parameters(model: Model) -> dict[str, int]:
    """network -> number of parameters."""
    return {name: build.parameter_count(tree) for name, tree in model.params.items()}
