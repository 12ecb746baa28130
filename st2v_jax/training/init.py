"""What a run starts from: networks of the stages before it, from the first place that has them, or fresh ones.

`config.init` says which and where:

    sources     folders of weights, published files or repositories of the hub, in the order in which they are looked
                at; --from replaces them by one. Without any, the networks of the stages before are fresh too.
    networks    what the stage cannot do without
    carried     what it takes along for later stages, where the first source holds it
    continued   true takes all that the first source holds: the stage's own networks go on from there

Everything else is born in the objective: a stage's own networks are fresh, even where a source holds trained ones.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from st2v_jax.data import caption_tokens
from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.open_model import open_model
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.weights import layout


class Start(NamedTuple):
    """What an objective is made of.

    Attributes:
      model: the sizes are the run's own; the scales of latents, which are measured, come with their autoencoders.
      params: nested dicts of float32 arrays by network, on the host.
      origin: which network is from where, in words.
    """

    model: build.ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    origin: str


def start(config, key: jax.Array, source=None) -> Start:
    """The Start of a run; `source` is what --from names, or None.

    Raises ValueError where the networks that the stage needs are in no source, or are of another model than the
    config's; WeightsError where a source that is there cannot be read.
    """
    init, model = config.init, build.ModelConfig.from_dict(config.model.to_dict())
    needed, sources = tuple(init.networks), (source,) if source is not None else tuple(init.sources)
    if not sources:
        return Start(
            model, born(model, needed, key), caption_tokens.tokenizer_for(model.text.vocab_size), 'fresh networks'
        )
    wanted = layout.networks(model) if init.continued else (*needed, *init.carried)
    params, tokenizer, origins, absent = {}, None, [], []
    for place in sources:
        if origins:  # a source before was there: those after it give what is still missing, and no more
            wanted = [name for name in needed if name not in params]
            if not wanted:
                break
        try:
            opened = open_model(place)
        except WeightsError as error:
            if source is not None or Path(place).exists():
                raise
            absent.append(' '.join(str(error).split()))
            continue
        names = [name for name in layout.networks(model) if name in wanted and name in opened.held]
        model = _fitted(model, opened.config, names, place)
        params |= opened.params(names)
        if 'text' in names:
            tokenizer = opened.tokenizer()
        origins.append(f'{", ".join(names) or "nothing"} from {place}')
    if missing := [name for name in needed if name not in params]:
        raise ValueError(
            f'stage {config.stage} starts from trained {", ".join(missing)}, which no source has '
            f'({"; ".join([*origins, *absent])}): name weights that have them with --from'
        )
    if tokenizer is None:
        tokenizer = caption_tokens.tokenizer_for(model.text.vocab_size)
    return Start(model, params, tokenizer, ', '.join(origins))


def born(model: build.ModelConfig, names, key: jax.Array) -> dict[str, Any]:
    """Fresh networks; a CAM is the copy of the UNet beside it."""
    params = build.init(key, build.Network(None, layout.abstract(model, names)))  # all at once, by their paths
    return build.copy_encoder(params) if {'cam', 'unet'} <= {*params} else params


def _fitted(model, before, names, place):
    """The model with the scales of those autoencoders, of `names`, that come from `place`.

    before: the ModelConfig there. Raises ValueError where a network has other sizes there than in the model.
    """
    if 'vae' in names:
        model = dataclasses.replace(model, scale_factor=before.scale_factor)
    if 'refiner_vae' in names:
        refiner = dataclasses.replace(model.refiner, scale_factor=before.refiner.scale_factor)
        model = dataclasses.replace(model, refiner=refiner)
    ours, theirs = _parts(model), _parts(before)
    parts = {'frame_size', *names} | ({model.backbone.KIND, 'apm'} if 'cam' in names else set())
    wrong = sorted(part for part in parts if theirs[part] != ours[part])
    wrong = [f'{part} is {theirs[part]} there and {ours[part]} here' for part in wrong]
    if wrong:
        raise ValueError(f'the weights in {place} are of another model than the config: ' + '; '.join(wrong))
    return model


def _parts(model):
    """What a model's config says of each network, by name, and the size of its frames."""
    values = model.to_dict()
    refiner = values['refiner']
    own = {model.backbone.KIND: values['backbone'], 'initial': values['backbone']}
    return {**values, **own, 'refiner': refiner['unet'], 'refiner_vae': refiner['vae'], 'refiner_text': refiner['text']}
