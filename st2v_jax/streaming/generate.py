"""A long video from one prompt, as functions: `load` a model once, `generate` as many videos as you like."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from st2v_jax.models import build
from st2v_jax.models.system import System, encode_prompt, system
from st2v_jax.open_model import OpenModel, default_dtype, on_device, open_model
from st2v_jax.streaming import stream as streaming
from st2v_jax.streaming.settings import SampleSettings, settings_for
from st2v_jax.streaming.stream import StreamState, start, video_keys
from st2v_jax.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is ready to sample.

    config: its sizes and defaults. tokenizer: of its text tower. params: arrays on the device. system: its networks as
    pure functions.
    """

    config: build.ModelConfig
    tokenizer: Tokenizer
    params: dict[str, Any]
    system: System

    @property
    def max_frames(self) -> float:
        """Frames of a video at most: infinity, or one chunk where there is a Video-LDM without CAM and APM."""
        return math.inf if 'cam' in self.params else self.config.contract.first_frames

    def settings(self, **overrides: Any) -> SampleSettings:
        """How this model is sampled: see `settings_for`."""
        return settings_for(self.config, **overrides)


def load(folder: str | Path | OpenModel | None = None, dtype: DTypeLike | None = None) -> Model:
    """A model on disk: whatever `open_model` takes, also what it gave; None is the one that ships with the package.

    dtype: what networks compute in; None is bfloat16 on a GPU or TPU and float32 on a CPU, where bfloat16 gains
    nothing. Raises WeightsError for a folder that is not a model or whose weights do not fit its config.
    """
    model = open_model(folder)
    dtype = default_dtype() if dtype is None else dtype
    tokenizer = model.tokenizer()  # first: it is read in no time
    params = model.params(place=on_device(dtype))
    return Model(model.config, tokenizer, params, system(model.config, dtype))


def check(prompts: Sequence[str], seeds: Sequence[int]) -> None:
    """Raises ValueError for an empty prompt and for a seed out of range."""
    if not prompts or not all(text.strip() for text in prompts):
        raise ValueError('the prompt is empty: say in a sentence what the video shows')
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise ValueError(f'a seed is between 0 and {2**32 - 1}, not {seed}')


def stream(
    model: Model,
    prompt: str | Sequence[str],
    *,
    seed: int | Sequence[int] = 0,
    negative_prompt: str = '',
    state: StreamState | None = None,
    settings: SampleSettings | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
) -> Iterator[tuple[np.ndarray, StreamState]]:
    """Iterator over the chunks of a video, each (its new frames, the state after it): endless, but one without CAM.

    A state is all that a chunk owes the next: from one that is kept, `stream` goes on as if it had not stopped, also
    with another prompt. `state.to_arrays()` and `StreamState.from_arrays(...)` take it to a file and back.

    prompt: a string, or a list of b strings for b videos at once.
    seed: 0 .. 2**32 - 1, or a list of b; each video is the one it would be alone with its seed. A state has its own.
    negative_prompt: what guidance leads away from.
    state: None begins a video.
    settings: as `model.settings(...)` gives them; the model's own for None.
    on_step: called as on_step(chunk, step, steps) after every denoising step: chunk from 0, step from 1.

    Frames are float32 arrays in [-1, 1]: [n, H, W, 3] for one prompt, [b, n, H, W, 3] for a list; n is 16 for the first
    chunk and 8 for later ones in a model of the released rhythm.
    Raises ValueError at once, before anything is computed, for an empty prompt or an impossible number.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
    check(prompts, seeds)
    if len(seeds) != len(prompts) or (state is not None and len(state.key) != len(prompts)):
        given = len(seeds) if state is None else len(state.key)
        raise ValueError(f'{len(prompts)} prompts make {len(prompts)} videos, not {given}')
    chosen = model.settings() if settings is None else settings
    ids, null_ids = model.tokenizer.ids(prompts), model.tokenizer.ids([negative_prompt] * len(prompts))

    def chunks():
        encoded = encode_prompt(model.system, model.params, ids, null_ids)
        begin = start(video_keys(seeds)) if state is None else state
        for frames, after in streaming.stream(model.system, chosen, model.params, encoded, begin, on_step=on_step):
            yield np.asarray(frames[0] if isinstance(prompt, str) else frames), after
            if 'cam' not in model.params:
                return

    return chunks()


def generate(model: Model, prompt: str | Sequence[str], num_frames: int = 48, **options: Any) -> Iterator[np.ndarray]:
    """The frames of a video, chunk by chunk, exactly num_frames in all; options and frames as for `stream`.

    num_frames: any number >= 1; how many have been made before costs neither time nor memory.
    Raises ValueError at once, before anything is computed, also where the model cannot make that many frames.
    """
    if num_frames < 1:
        raise ValueError(f'a video has at least 1 frame, not {num_frames}')
    if num_frames > model.max_frames:
        raise ValueError(f'without CAM and APM there is one chunk of {model.max_frames} frames, not {num_frames}')
    return first_frames((frames for frames, _ in stream(model, prompt, **options)), num_frames)


def first_frames(pieces: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The pieces [..., n, H, W, 3] of a video until they are `count` frames; the last is cut, none is made after."""
    for frames in pieces:
        yield frames[..., :count, :, :, :]
        count -= frames.shape[-4]
        if count <= 0:
            return
