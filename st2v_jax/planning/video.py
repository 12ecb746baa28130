"""What a video will take, computed before anything is loaded: parameters, and time and memory of each stage."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from st2v_jax.cost import Cost, cost
from st2v_jax.devices import default_dtype
from st2v_jax.models import build
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.system import system
from st2v_jax.open_model import OpenModel, open_model
from st2v_jax.planning import programs
from st2v_jax.planning.device import Rates
from st2v_jax.planning.programs import Program
from st2v_jax.refinement.enhancer import Enhancer, enhancer_of
from st2v_jax.streaming.generate import Model
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.weights.layout import abstract


@dataclass(frozen=True)
class Stage:
    """A program of the sampler, what one run of it costs, and how often it runs; ahead is as in `Program`."""

    name: str
    cost: Cost
    repeats: int
    ahead: bool = False

    def seconds(self, rates: Rates) -> float:
        """Seconds of one run."""
        device, host = rates.program_seconds(self.cost), self.cost.passed * rates.argument
        return max(device, host) if self.ahead else device + host


def abstract_model(
    folder: str | Path | OpenModel | None = None,
    dtype: DTypeLike | None = None,
    frame_size: tuple[int, int] | None = None,
) -> Model:
    """The Model that `load` returns, but with shapes for parameters, which are not read, and without a tokenizer."""
    model = open_model(folder)
    config = model.config.sized(frame_size)
    dtype = default_dtype() if dtype is None else dtype
    return Model(config, None, held(config, model.networks, dtype), system(config, dtype))


def abstract_enhancer(folder: str | Path | OpenModel | None = None, dtype: DTypeLike | None = None) -> Enhancer:
    """The Enhancer that `load_enhancer` returns for one device, but with shapes for parameters and no tokenizer."""
    model = open_model(folder)
    dtype = default_dtype() if dtype is None else dtype
    return enhancer_of(model.config, held(model.config, model.refinement, dtype), dtype)


def held(config: ModelConfig, networks: Iterable[str], dtype: DTypeLike) -> dict[str, Any]:
    """The parameters of these networks as shapes, in the dtypes that they have on the device."""
    on_device = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype if leaf.ndim > 1 else jnp.float32)
    shapes = jax.tree.map(on_device, abstract(config, networks))
    return jax.eval_shape(lambda shapes: build.with_biases(shapes, dtype), shapes)


def stages(model: Model, settings: SampleSettings, num_frames: int, enhancer: Enhancer | None = None) -> list[Stage]:
    """The stages of a video of num_frames frames, and with an enhancer also those of `st2v sample --enhance`.

    model and enhancer are as from `abstract_model` and `abstract_enhancer`.
    """
    found = programs.streaming(model, settings, num_frames)
    if enhancer is not None:
        size = model.config.frame_size
        found += programs.refinement(
            enhancer,
            enhancer.settings(variant=settings.profile),
            size,
            num_frames,
            profile=settings.profile,
            decode_frames=settings.decode_frames,
        )
    return counted(found)


def counted(found: Iterable[Program]) -> list[Stage]:
    """The stages that programs are, see `programs`: what each costs."""
    return [Stage(one.name, cost(one.function, *one.arguments), one.repeats, one.ahead) for one in found]


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
