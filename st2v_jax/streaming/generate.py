"""A long video from one prompt, as functions: `load` a model once, `generate` as many videos as you like."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from st2v_jax.diffusion.schedule import sampling_levels
from st2v_jax.models import build
from st2v_jax.open_model import OpenModel, default_dtype, on_device, open_model
from st2v_jax.streaming import stream
from st2v_jax.tokenizer import Tokenizer

STEPS = 20  # denoising steps of a chunk unless told otherwise


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is ready to sample.

    config: its sizes and defaults. tokenizer: of its text tower. params: arrays on the device. system: its networks as
    pure functions.
    """

    config: build.ModelConfig
    tokenizer: Tokenizer
    params: dict[str, Any]
    system: stream.System

    @property
    def max_frames(self) -> float:
        """Frames of a video at most: infinity, or one chunk where there is a Video-LDM without CAM and APM."""
        return math.inf if 'cam' in self.params else self.config.frames

    def settings(self, **overrides) -> stream.SampleSettings:
        """The sampling settings of this model: its own and its profile's, then the overrides (`SampleSettings`).

        Raises ValueError for a name or value that does not exist.
        """
        own = {'steps': STEPS}
        if 'guidance_text' in overrides:  # the first chunk knows one scale only, and it is the text's
            own['first_guidance'] = overrides['guidance_text']
        settings = stream.settings_for(self.config, **own | overrides)
        for solver, steps in ((settings.first_solver, settings.first_steps), (settings.solver, settings.steps)):
            sampling_levels(self.config.diffusion, solver, steps)  # raises where a process has no so many steps
        return settings


def load(folder: str | Path | OpenModel | None = None, dtype=None) -> Model:
    """A model on disk: whatever `open_model` takes, also what it gave; None is the one that ships with the package.

    dtype: what networks compute in; None is bfloat16 on a GPU or TPU and float32 on a CPU, where bfloat16 gains
    nothing. Raises WeightsError for a folder that is not a model or whose weights do not fit its config.
    """
    model = open_model(folder)
    dtype = default_dtype() if dtype is None else dtype
    tokenizer = model.tokenizer()  # first: it is read in no time
    params = model.params(place=on_device(dtype))
    return Model(model.config, tokenizer, params, stream.system(model.config, dtype))


def check(prompts, seed):
    """Raises ValueError for an empty prompt, and for a seed that is none."""
    if not prompts or not all(text.strip() for text in prompts):
        raise ValueError('the prompt is empty: say in a sentence what the video shows')
    if not 0 <= seed < 2**32:
        raise ValueError(f'a seed is between 0 and {2**32 - 1}, not {seed}')


def generate(
    model: Model, prompt, num_frames=48, *, seed=0, negative_prompt='', on_step=None, **settings
) -> Iterator[np.ndarray]:
    """Generates the video of a prompt, chunk by chunk, exactly num_frames frames in all.

    prompt: a string, or a list of b strings for b videos at once.
    num_frames: any number >= 1; how many have been made before costs neither time nor memory.
    seed: 0 .. 2**32 - 1; the same seed, settings and device give the same video.
    negative_prompt: what guidance leads away from.
    on_step: called as on_step(chunk, step, steps) after every denoising step: chunk from 0, step from 1.
    settings: of `SampleSettings`, such as steps=30, profile='release', guidance_text=7.5, eta=1.0.

    Returns an iterator over float32 arrays in [-1, 1]: [n,H,W,3] for one prompt, [b,n,H,W,3] for a list. n is 16 for
    the first chunk and 8 for later ones in a model of the released rhythm, less where the video ends.
    Raises ValueError at once, before anything is computed, for an empty prompt or an impossible number or setting.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    check(prompts, seed)
    if num_frames < 1:
        raise ValueError(f'a video has at least 1 frame, not {num_frames}')
    if num_frames > model.max_frames:
        raise ValueError(f'without CAM and APM there is one chunk of {model.max_frames} frames, not {num_frames}')
    chosen = model.settings(**settings)
    ids = model.tokenizer.ids(prompts)
    null_ids = model.tokenizer.ids([negative_prompt] * len(prompts))

    def chunks():
        context = stream.encode_prompt(model.system, model.params, ids, null_ids)
        key = jax.random.key(seed)
        for frames in stream.generate(model.system, chosen, model.params, context, key, num_frames, on_step=on_step):
            yield np.asarray(frames[0] if isinstance(prompt, str) else frames)

    return chunks()
