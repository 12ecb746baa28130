"""One model out of published files: which network comes from where, and the config that all of them make."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.convert.engine import ConversionError, Converted, Under
from st2v_jax.convert.recognise import RELEASED, Checkpoint
from st2v_jax.convert.sources import Published
from st2v_jax.models.build import ModelConfig
from st2v_jax.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Assembly:
    """A model in published files.

    Attributes:
      config: of the whole.
      files: network -> (file, checkpoint) that it is read from.
      tokenizer: arguments of the streaming stage's Tokenizer.
    """

    config: ModelConfig
    files: dict[str, tuple[Path, Checkpoint]]
    tokenizer: dict[str, Any]

    def arrays(self, abstract: Callable, only: Collection[str]) -> dict[str, Mapping[str, np.ndarray]]:
        """network -> {path: array}, fetched when asked for, of the networks in `only`; all of a file is checked first.

        abstract: (config, networks) -> {network: tree of shapes}. Raises ConversionError with what does not fit in any
        file.
        """
        arrays, complaints = {}, []
        for file, checkpoint in dict.fromkeys(self.files[name] for name in only):
            try:
                # With the file's own sizes: what of it is not used may be of others than the model's.
                trees = abstract(merged(self.config, checkpoint.sizes), checkpoint.networks)
                converted = Converted(checkpoint.tensors, checkpoint.table, trees)
                here = [name for name in only if self.files[name][1] is checkpoint]
                arrays |= {name: Under(converted, f'{name}/') for name in here}
            except ConversionError as error:
                complaints += [f'{file.name}: {complaint}' for complaint in error.complaints]
        if complaints:
            raise ConversionError(complaints)
        return arrays


def assemble(
    found: list[Published],
    config: ModelConfig | None = None,
    held: Collection[str] = (),
    tokenizer: Mapping[str, Any] | None = None,
) -> Assembly:
    """The model that published places make together; what comes later in the list takes precedence.

    config, held, tokenizer: of a model that they are added to, and its networks.

    The streaming model's file has a UNet that was trained further. A Video-LDM beside it therefore becomes `initial`,
    which draws the first chunk, as in the release.
    """
    config = RELEASED if config is None else config
    streaming = 'cam' in held or any('cam' in c.networks for place in found for _, c in place.checkpoints)
    files, tokenizer = {}, dict(tokenizer or {'pad': 0})
    for place in found:
        ours = place.ours
        here = {}
        for file, checkpoint in place.checkpoints:
            if streaming and checkpoint.is_video_ldm:
                checkpoint = checkpoint.as_initial()
            if ours is not None and not {*checkpoint.networks} & {*ours['networks']}:
                continue  # written for other programs: the model has it in another file
            # One place may hold a network twice: the larger file, which comes first, is the one that fits together.
            new = [name for name in checkpoint.networks if name not in here]
            if new:
                config = merged(config, checkpoint.sizes)
            here |= dict.fromkeys(new, (file, checkpoint))
        files |= here
        if place.pad is not None:
            tokenizer = {'pad': place.pad}
        if place.diffusion is not None:
            config = dataclasses.replace(config, diffusion=place.diffusion)
        if ours is not None:
            config, tokenizer = ModelConfig.from_dict(ours['config']), ours['tokenizer']
    config = dataclasses.replace(config, initial='initial' in (*files, *held))
    size = Tokenizer(**tokenizer).size
    if 'text' in files and size != config.text.vocab_size:
        raise ValueError(f'the text tower has {config.text.vocab_size} rows, its tokenizer {size}')
    if {'text', 'unet'} <= {*files, *held} and config.text.width != config.unet.context_width:
        raise ValueError(
            f'the UNet reads text of width {config.unet.context_width}, the text tower gives {config.text.width}'
        )
    return Assembly(config, files, tokenizer)


def merged(config, sizes):
    """config with what files tell of it; nested dicts belong to nested configs."""
    changes = {
        name: merged(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in sizes.items()
    }
    return dataclasses.replace(config, **changes)
