"""What a model's config implies: the names of its networks, which stage needs which, and their trees of parameters."""

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.unet3d import UNet3D
from st2v_jax.tokenizer import Tokenizer

LONG_TERM = ('image', 'apm')  # the networks that the anchor frame goes through
MEMORIES = ('cam', *LONG_TERM)  # the networks that later chunks need and the first does not


def streaming(config: ModelConfig) -> tuple[str, ...]:
    """The names of the networks of the streaming stage.

    A model without long-term memory lacks its networks; 'initial' is there if the first chunk has a UNet of its own.
    """
    names = ('vae', 'text', 'image', config.backbone.KIND, 'cam', 'apm')
    names = tuple(name for name in names if config.apm is not None or name not in LONG_TERM)
    return (*names, 'initial') if config.initial else names


def sampled(config: ModelConfig, held: Collection[str]) -> tuple[str, ...]:
    """The networks of `streaming` that sampling uses, given those held; without CAM and APM, those of a first chunk."""
    return tuple(name for name in streaming(config) if name not in MEMORIES or {'cam', 'apm'} & {*held})


def refinement(config: ModelConfig) -> dict[str, str]:
    """{part: network} of the refinement stage: 'refiner', 'vae' and 'text'; streaming may share the last two."""
    own = {'vae': config.refiner.vae, 'text': config.refiner.text}
    return {'refiner': 'refiner'} | {part: part if size is None else f'refiner_{part}' for part, size in own.items()}


def networks(config: ModelConfig) -> tuple[str, ...]:
    """The names of all networks of a model: those of `streaming`, and those that only the refinement stage has."""
    own = streaming(config)
    return (*own, *(name for name in refinement(config).values() if name not in own))


def abstract(config: ModelConfig, only: Iterable[str]) -> dict[str, Any]:
    """{network: nested dict of shapes} of the model that `config` describes, for the networks named in `only`.

    Raises ValueError for a name that is not one of `networks`.
    """
    only, known = tuple(only), networks(config)
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise ValueError(f'no such network: {", ".join(unknown)}; the model has {", ".join(known)}')
    own = config.for_refinement
    unet = partial(build.network, UNet3D, config.backbone)
    doors = {
        'unet': unet,
        'initial': unet,
        'vae': partial(build.vae, config),
        'text': partial(build.text_tower, config),
        'image': partial(build.image_tower, config),
        'refiner': partial(build.refiner, config),
        'refiner_vae': partial(build.vae, own),
        'refiner_text': partial(build.text_tower, own),
    }
    trees = {name: doors[name](dtype=jnp.float32).abstract for name in only if name in doors}
    if set(only) - set(doors):
        trees = build.denoiser(config, jnp.float32).abstract | trees
    return {name: trees[name] for name in only}


def check_tokenizer(tokenizer: Tokenizer, rows: int, source: str | Path) -> None:
    """Raises WeightsError unless the text tower in `source` has as many `rows` as its tokenizer has ids."""
    if tokenizer.size != rows:
        raise WeightsError(f'{source}: the text tower has {rows} rows, its tokenizer {tokenizer.size} ids')
