"""One model made of published files: which file each network comes from, and the config of the whole."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.convert.engine import ConversionError, Converted, Under
from st2v_jax.convert.recognise import RELEASED, Checkpoint
from st2v_jax.convert.sources import Published
from st2v_jax.models.build import ModelConfig
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.weights.folder import Folder
from st2v_jax.weights.layout import abstract, check_tokenizer


@dataclass(frozen=True, eq=False)
class Assembly:
    """A model in published files.

    Attributes:
      config: of the whole model.
      files: {network: (file, checkpoint) that it is read from}.
      tokenizer: that of the streaming stage's text tower.
    """

    config: ModelConfig
    files: dict[str, tuple[Path, Checkpoint]]
    tokenizer: Tokenizer

    @property
    def held(self) -> frozenset[str]:
        """The names of the networks whose parameters are there."""
        return frozenset(self.files)

    def arrays(self, only: Collection[str]) -> dict[str, Mapping[str, np.ndarray]]:
        """{network: {path: array}} of the networks in `only`, fetched when asked for; whole files are checked first.

        Raises ConversionError with every network that no file has, and everything in the files that does not fit.
        """
        there = [name for name in only if name in self.files]
        arrays, complaints = {}, [f'{name}: in none of the files' for name in only if name not in self.files]
        for file, checkpoint in dict.fromkeys(self.files[name] for name in there):
            try:
                # With the file's own sizes, because networks of it that are not used may differ from the model's.
                trees = abstract(merged(self.config, checkpoint.sizes), checkpoint.networks)
                converted = Converted(checkpoint.tensors, checkpoint.table, trees)
                here = [name for name in there if self.files[name][1] is checkpoint]
                arrays |= {name: Under(converted, f'{name}/') for name in here}
            except ConversionError as error:
                complaints += [f'{file.name}: {complaint}' for complaint in error.complaints]
        if complaints:
            raise ConversionError(complaints)
        return arrays


def assemble(found: Sequence[Published], onto: Folder | None = None, held: Collection[str] = ()) -> Assembly:
    """The model that published files of several places make together; later places take precedence.

    The streaming model's file has a UNet that was trained further. A Video-LDM beside it therefore becomes `initial`,
    which generates the first chunk, as in the release.

    Args:
      found: the files of each place.
      onto: the model that they are added to; None is the released one.
      held: the networks that are there already.
    """
    config, tokenizer = (RELEASED, Tokenizer(pad=0)) if onto is None else (onto.config, onto.tokenizer)
    streaming = 'cam' in held or any('cam' in c.networks for place in found for _, c in place.checkpoints)
    files = {}
    for place in found:
        ours = place.ours
        here = {}
        for file, checkpoint in place.checkpoints:
            if streaming and checkpoint.is_video_ldm:
                checkpoint = checkpoint.as_initial()
            if ours is not None and not {*checkpoint.networks} & {*ours['networks']}:
                continue  # a copy for other programs: the model has it in another file
            # One place may have a network twice: the file with more networks comes first, and those fit together.
            new = [name for name in checkpoint.networks if name not in here]
            if new:
                config = merged(config, checkpoint.sizes)
            here |= dict.fromkeys(new, (file, checkpoint))
        files |= here
        if place.pad is not None:
            tokenizer = Tokenizer(pad=place.pad)
        if place.diffusion is not None:
            config = dataclasses.replace(config, diffusion=place.diffusion)
        if ours is not None:
            config, tokenizer = ModelConfig.from_dict(ours['config']), Tokenizer.from_dict(ours['tokenizer'])
    config = dataclasses.replace(config, initial='initial' in (*files, *held))
    if 'text' in files:
        check_tokenizer(tokenizer, config.text.vocab_size, files['text'][0])
    if {'text', 'unet'} <= {*files, *held} and config.text.width != config.backbone.context_width:
        raise ValueError(
            f'the UNet reads text of width {config.backbone.context_width}, the text tower gives {config.text.width}'
        )
    return Assembly(config, files, tokenizer)


def merged(config: Any, sizes: Mapping[str, Any]) -> Any:
    """The config with these sizes; nested dicts are for nested configs."""
    changes = {
        name: merged(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in sizes.items()
    }
    return dataclasses.replace(config, **changes)
