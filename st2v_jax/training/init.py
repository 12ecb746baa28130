"""What a run starts from: networks of earlier stages, from the first source that has them, or new ones.

`config.init` says which networks, and from where:

    sources     folders of weights, published files or repositories of the hub, in the order in which they are
                searched; --from replaces them by one. Without sources, the networks of earlier stages are new too.
    networks    the networks that the stage needs
    carried     the networks to keep for later stages, if the first source has them
    continued   true takes all networks of the first source, and so continues to train the stage's own networks

All other networks are initialised by the objective: a stage trains its own networks from scratch, even if a source has
trained ones.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from st2v_jax import trees
from st2v_jax.convert.nearby import hint
from st2v_jax.data import caption_tokens
from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.open_model import open_model
from st2v_jax.storage.buckets import located
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.weights import layout


class Start(NamedTuple):
    """What an objective starts from.

    Attributes:
      model: with the sizes of the run; the measured scale of the latents comes with each autoencoder.
      params: nested dicts of float32 arrays by network, on the host.
      tokenizer: of the text tower.
      origin: where each network is from, in words.
    """

    model: build.ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    origin: str


def start(config: ConfigDict, key: jax.Array, source: str | Path | None = None) -> Start:
    """The Start of a run; `source` is the value of --from, or None.

    Raises ValueError if no source has the networks that the stage needs, or if they belong to another model than the
    config describes. Raises WeightsError if a source exists but cannot be read.
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
        if origins:  # an earlier source was found: the later ones only fill in missing networks
            wanted = [name for name in needed if name not in params]
            if not wanted:
                break
        try:
            opened = open_model(place)
        except WeightsError as error:
            if source is not None or located(place).exists():
                raise
            absent.append(' '.join(str(error).split()))
            continue
        names = [name for name in layout.networks(model) if name in wanted and name in opened.held]
        model = _fitted(model, opened.config, names, place)
        params |= opened.params(names)
        if 'cam' in names and model.cam.positions:
            params['cam'] = _with_codes(model, params['cam'])
        if 'text' in names:
            tokenizer = opened.tokenizer()
        origins.append(f'{", ".join(names) or "nothing"} from {place}')
    if missing := [name for name in needed if name not in params]:
        raise ValueError(
            f'stage {config.stage} starts from trained {", ".join(missing)}, but no source has them '
            f'({"; ".join([*origins, *absent])}): give weights that have them with --from'
            f'{"" if source is None else hint(source)}'
        )
    if tokenizer is None:
        tokenizer = caption_tokens.tokenizer_for(model.text.vocab_size)
    return Start(model, params, tokenizer, ', '.join(origins))


def born(model: build.ModelConfig, names: Iterable[str], key: jax.Array) -> dict[str, Any]:
    """New networks; if UNet and CAM are among them, CAM is a copy of the UNet's encoder."""
    params = build.init(key, build.Network(None, layout.abstract(model, names)))  # all at once, by their paths
    return build.copy_encoder(params) if {'cam', 'unet'} <= {*params} else params


def _fitted(model, before, names, place):
    """The model with the latent scales of the autoencoders in `names`, which come from the source `place`.

    before: the ModelConfig of the source. Raises ValueError if one of the networks has other sizes there.
    """
    if 'vae' in names:
        model = dataclasses.replace(model, scale_factor=before.scale_factor)
    if 'refiner_vae' in names:
        refiner = dataclasses.replace(model.refiner, scale_factor=before.refiner.scale_factor)
        model = dataclasses.replace(model, refiner=refiner)
    ours, theirs = _parts(model), _parts(before)
    parts = {'frame_size', *names} | ({model.backbone.KIND, 'apm'} if 'cam' in names else set())
    if not before.cam.positions:  # they are added as zeros, see `_with_codes`
        theirs['cam'] = {**theirs['cam'], 'positions': model.cam.positions}
    wrong = sorted(part for part in parts if theirs[part] != ours[part])
    wrong = [f'{part} is {theirs[part]} there, {ours[part]} here' for part in wrong]
    if wrong:
        raise ValueError(f'the weights in {place} belong to another model than the config: ' + '; '.join(wrong))
    return model


def _with_codes(model, cam):
    """The parameters of a CAM with codes of the frames; those that it lacks are zero, so it computes what it did."""
    whole = layout.abstract(model, ['cam'])['cam']
    zeros = {path: np.zeros(leaf.shape, np.float32) for path, leaf in trees.leaves(whole)}
    return trees.join(trees.unflatten(zeros), cam)


def _parts(model):
    """The part of a model's config for each network, by name, and the size of the frames."""
    values = model.to_dict()
    refiner = values['refiner']
    own = {model.backbone.KIND: values['backbone'], 'initial': values['backbone']}
    return {**values, **own, 'refiner': refiner['unet'], 'refiner_vae': refiner['vae'], 'refiner_text': refiner['text']}
