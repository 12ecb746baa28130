"""What sample and enhance share: the device line, warnings about prompts, the refinement stage, writing the file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from st2v_jax import video_io
from st2v_jax.cli.progress import Progress, warn
from st2v_jax.cli.run import Run
from st2v_jax.errors import BadInput
from st2v_jax.tokenizer import Tokenizer, in_short, lost_message

if TYPE_CHECKING:  # these import jax, for which --help does not wait
    from st2v_jax.refinement.enhancer import Enhancer
    from st2v_jax.refinement.sdedit import RefineSettings
    from st2v_jax.streaming.prompt_schedule import PromptSchedule


def name_device(dtype: str | None) -> None:
    """Prints the device that the networks run on, the type that they compute in, and why; dtype: as chosen, or None."""
    from st2v_jax import devices

    device = devices.current()
    own, why = devices.computing(device)
    if dtype is not None:
        own, why = dtype, 'as chosen'
    name = (
        f'CPU with {os.cpu_count()} cores' if device.platform == 'cpu' else f'{device.device_kind} ({device.platform})'
    )
    print(f'device: {name}, computing in {np.dtype(own)}, {why}', flush=True)


def check_words(tokenizer: Tokenizer, prompts: Iterable[str], negative_prompt: str) -> None:
    """Warns, text by text, about words that the model does not know and about words that do not fit.

    Raises BadInput for a prompt of which nothing reaches the model. For the negative prompt that is a warning.
    """
    prompts = list(dict.fromkeys(prompts))
    empty = [prompt for prompt in prompts if not tokenizer.reaches(prompt)]
    if empty:
        more = f' (nor of {len(empty) - 1} more)' if len(empty) > 1 else ''
        raise BadInput(f'nothing of the prompt "{in_short(empty[0])}"{more} reaches this model{_known(tokenizer)}')
    for prompt in prompts:
        _warn_about(tokenizer, prompt)
    if negative_prompt and not tokenizer.reaches(negative_prompt):
        warn(f'nothing of the negative prompt "{in_short(negative_prompt)}" reaches this model{_known(tokenizer)}')
    else:
        _warn_about(tokenizer, negative_prompt)


def _warn_about(tokenizer, text):
    unknown, lost = tokenizer.unknown_words(text), tokenizer.lost(text)
    if unknown:
        words = in_short(', '.join(unknown))
        count = f'{len(unknown)} words, ' if ' ... ' in words else ''
        warn(f'this model does not know {count}{words}, which will have no effect{_known(tokenizer)}')
    if lost:
        warn(lost_message(lost))


def _known(tokenizer):
    return '' if tokenizer.rows is None else '; st2v sample --list-words shows the words that it knows'


def enhanced(
    enhancer: Enhancer,
    frames: Iterable[np.ndarray],
    prompt: PromptSchedule,
    progress: Progress,
    settings: RefineSettings,
    **options: Any,
) -> Iterator[np.ndarray]:
    """Yields the enhanced frames of a video in pieces [n, H, W, 3], with a bar for the steps and one for the writing.

    options: further arguments of `enhance`.
    """
    from st2v_jax.refinement.enhancer import enhance

    count, begun = 0, False

    def begin():
        nonlocal begun
        begun = True
        progress.stage('enhancing, compiling', settings.steps, 'steps')

    def read():
        nonlocal count
        for some in frames:
            yield some
            count += len(some)
        begin()

    def on_step(step, steps):
        if not begun:  # an enhancement that goes on reads no frames
            begin()
        progress.to(step, f'enhancing step {step}/{steps}')
        if step == steps:
            progress.stage('writing', count or None)

    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'the prompt is longer')  # check_words has said so
        pieces = enhance(enhancer, read(), prompt, on_step=on_step, **options, **dataclasses.asdict(settings))
    with contextlib.closing(pieces):  # temporary files go now, not when Python gets to it
        yield from pieces


def save(
    pieces: Iterable[np.ndarray], output: str, fps: float, metadata: dict[str, Any], progress: Progress, run: Run
) -> None:
    """Writes frames as they are made, keeps `run` up to date, and reports the finished file.

    pieces: iterator over frames [n, H, W, 3]; all of the work happens in it.
    metadata: what is stored in the file; its 'command' repeats the video, and without one that of the run does.
    """
    run.again, run.target = metadata.get('command', run.again), output
    run.written, video = 'nothing was written', None
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(progress)
            for frames in pieces:
                if video is None:  # opened late: a run that fails before this leaves an existing file untouched
                    size = frames.shape[1:3]
                    video = stack.enter_context(video_io.VideoWriter(output, fps, size, metadata))
                video.write(frames)
                progress.to(video.frames)
    finally:
        if video is not None and video.kept:
            run.written = f'{video.kept} of {progress.total} frames are in {output}'
    if not progress.quiet:
        print(f'saved {output} ({video.frames} frames, {video.frames / fps:.1f} s); again: {run.again}', flush=True)
