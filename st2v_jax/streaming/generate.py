"""A long video from its prompts, as functions: `load` a model once, `generate` as many videos as you like."""

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike

from st2v_jax.devices import default_dtype
from st2v_jax.models import build
from st2v_jax.models.system import Prompt, System, between, encode_prompt, system
from st2v_jax.open_model import OpenModel, on_device, open_model
from st2v_jax.streaming import stream as streaming
from st2v_jax.streaming.gate import OFF, Gate
from st2v_jax.streaming.prompt_schedule import PromptSchedule, Text, as_schedules
from st2v_jax.streaming.settings import SampleSettings, settings_for
from st2v_jax.streaming.stream import StreamState, start, video_keys
from st2v_jax.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is ready to sample.

    Attributes:
      config: its sizes and defaults.
      tokenizer: that of its text tower.
      params: {network: nested dict of arrays on the device}.
      system: its networks as pure functions.
      source: where it was read from; None for a model that was made here.
    """

    config: build.ModelConfig
    tokenizer: Tokenizer
    params: dict[str, Any]
    system: System
    source: OpenModel | None = None

    @property
    def max_frames(self) -> float:
        """The most frames of a video: infinity, or one chunk for a Video-LDM without CAM and APM."""
        return math.inf if 'cam' in self.params else self.config.contract.first_frames

    def settings(self, **overrides: Any) -> SampleSettings:
        """The settings that this model is sampled with, after the overrides; see `settings_for`."""
        return settings_for(self.config, **overrides)


def load(
    folder: str | Path | OpenModel | None = None,
    dtype: DTypeLike | None = None,
    frame_size: tuple[int, int] | None = None,
) -> Model:
    """Loads a model from disk.

    Args:
      folder: whatever `open_model` takes or returned; None is the model that ships with the package.
      dtype: what networks compute in; None is what suits the device, see `devices.computing`.
      frame_size: (height, width) in pixels, see `ModelConfig.sized`; None is the size that the model was trained at.

    Raises:
      ValueError: for a size that the networks do not divide.
      WeightsError: for a folder that is not a model, or whose weights do not fit its config or the dtype.
    """
    model = open_model(folder)
    config = model.config.sized(frame_size)
    dtype = default_dtype() if dtype is None else dtype
    tokenizer = model.tokenizer()  # first: it is read quickly, and may fail
    params = build.with_biases(model.params(place=on_device(dtype)), dtype)
    return Model(config, tokenizer, params, system(config, dtype), model)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError for a seed out of range."""
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise ValueError(f'a seed is between 0 and {2**32 - 1}, not {seed}')


class TextIds(NamedTuple):
    """What b videos are told in one chunk, as the text tower reads it.

    Attributes:
      ids: [b, t] token ids of the prompts.
      following: [b, t] those of the prompts that blends lead to; of a video without a blend the same as `ids`.
      share: [b] float32, of the following prompts; 0 without a blend.
    """

    ids: np.ndarray
    following: np.ndarray
    share: np.ndarray


def text_ids(ids: Mapping[str, np.ndarray], texts: Sequence[Text]) -> TextIds:
    """The TextIds of texts [b], from the token ids [t] of their prompts."""
    following = [text.prompt if text.following is None else text.following for text in texts]
    share = np.array([text.share for text in texts], np.float32)
    return TextIds(np.stack([ids[text.prompt] for text in texts]), np.stack([ids[text] for text in following]), share)


def encode(model: Model, told: TextIds, null_ids: np.ndarray) -> Prompt:
    """The Prompt that a chunk of b videos takes; null_ids [b, t] are those of the empty or the negative prompt."""
    prompt = encode_prompt(model.system, model.params, told.ids, null_ids)
    if not told.share.any():
        return prompt
    following = encode_prompt(model.system, model.params, told.following, null_ids)
    return prompt._replace(text=between(prompt.text, following.text, told.share))


def stream(
    model: Model,
    prompt: str | PromptSchedule | Sequence[str | PromptSchedule],
    *,
    seed: int | Sequence[int] = 0,
    negative_prompt: str = '',
    state: StreamState | None = None,
    settings: SampleSettings | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    gate: Gate = OFF,
    tell: Callable[[str], None] = warnings.warn,
) -> Iterator[tuple[np.ndarray, StreamState]]:
    """An iterator over the chunks of a video, each as (its new frames, the state after it).

    It never ends, except that a model without CAM makes one chunk only. A state is all that the next chunk needs: from
    a state that was kept, `stream` continues as if it had not stopped, also with another prompt. `state.to_arrays()`
    and `StreamState.from_arrays(...)` bring it to a file and back.

    Args:
      model: as from `load`.
      prompt: a string, a PromptSchedule where the prompt changes on the way, or a list of b of these for b videos at
        once.
      seed: 0 .. 2**32 - 1, or a list of b. A video in a batch is the same as alone with its seed. Not used with a
        `state`, which has its own.
      negative_prompt: what guidance leads away from.
      state: where to continue, or what to begin with, see `own_start`; None begins with text alone.
      settings: as from `model.settings(...)`; None is the model's own.
      on_step: called as on_step(chunk, step, steps) after every denoising step; chunk counts from 0, step from 1.
      gate: what is done about a chunk with a fault, of one video at a time.
      tell: called with a line about each of these chunks.

    Returns:
      The iterator. Frames are float32 arrays in [-1, 1], [n, H, W, 3] for one prompt and [b, n, H, W, 3] for a list.
      With the released chunks of 16 frames and a memory of 8, n is 16 for the first chunk and 8 for later ones.

    Raises:
      ValueError: at once, before anything is computed, for an empty prompt or an impossible number.
    """
    alone, schedules = isinstance(prompt, str | PromptSchedule), as_schedules(prompt)
    seeds = [seed] * len(schedules) if np.ndim(seed) == 0 else list(seed)
    check_seeds(seeds)
    if len(seeds) != len(schedules) or (state is not None and len(state.key) != len(schedules)):
        given = len(seeds) if state is None else len(state.key)
        raise ValueError(
            f'{len(schedules)} prompts need as many seeds, or a state of {len(schedules)} videos, not {given}'
        )
    if gate.action != 'off' and len(schedules) > 1:
        raise ValueError(f'a gate takes one video at a time, not {len(schedules)}')
    chosen = model.settings() if settings is None else settings
    prompts = list(dict.fromkeys(prompt for schedule in schedules for prompt in schedule.prompts))
    ids = dict(zip(prompts, model.tokenizer.ids(prompts), strict=True))
    null_ids = model.tokenizer.ids([negative_prompt] * len(schedules))

    @functools.lru_cache(1)
    def encoded(texts):
        return encode(model, text_ids(ids, texts), null_ids)

    begin = start(video_keys(seeds)) if state is None else state
    contract = begin.counted(model.config.contract)

    def of_chunk(chunk):
        return encoded(tuple(schedule.of_chunk(contract, chunk) for schedule in schedules))

    def chunks():
        options = {'on_step': on_step, 'gate': gate, 'tell': tell}
        for frames, after in streaming.stream(model.system, chosen, model.params, of_chunk, begin, **options):
            yield np.asarray(frames[0] if alone else frames), after
            if 'cam' not in model.params:
                return

    return chunks()


def generate(
    model: Model,
    prompt: str | PromptSchedule | Sequence[str | PromptSchedule],
    num_frames: int = 48,
    **options: Any,
) -> Iterator[np.ndarray]:
    """The frames of a video, chunk by chunk, num_frames in all.

    Args:
      model: as from `load`.
      prompt: as for `stream`.
      num_frames: at least 1. However long the video, memory and time per frame stay the same.
      options: as for `stream`, and the frames are as from there.

    Raises:
      ValueError: at once, before anything is computed, for an impossible number, also of frames.
    """
    if num_frames < 1:
        raise ValueError(f'a video has at least 1 frame, not {num_frames}')
    if num_frames > model.max_frames:
        raise ValueError(f'without CAM and APM there is one chunk of {model.max_frames} frames, not {num_frames}')
    return first_frames((frames for frames, _ in stream(model, prompt, **options)), num_frames)


def first_frames(pieces: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The first `count` frames of a video in pieces [..., n, H, W, 3]; the last is cut, and no further one is made."""
    for frames in pieces:
        yield frames[..., :count, :, :, :]
        count -= frames.shape[-4]
        if count <= 0:
            return
