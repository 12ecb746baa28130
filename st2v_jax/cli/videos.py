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
from st2v_jax.tokenizer import Tokenizer

if TYPE_CHECKING:  # these import jax, for which --help does not wait
    from st2v_jax.refinement.enhancer import Enhancer
    from st2v_jax.refinement.sdedit import RefineSettings


def name_device() -> None:
    """Prints the device that the networks run on and the type that they compute in."""
    import jax

    device = jax.local_devices()[0]
    if device.platform == 'cpu':
        text = f'CPU with {os.cpu_count()} cores, computing in float32'
    else:
        text = f'{device.device_kind} ({device.platform}), computing in bfloat16'
    print(f'device: {text}', flush=True)


def warn_about_words(tokenizer: Tokenizer, prompts: Iterable[str]) -> None:
    """Warns, prompt by prompt, about words that the model does not know and about words that do not fit."""
    for prompt in dict.fromkeys(prompts):
        unknown, lost = tokenizer.unknown_words(prompt), tokenizer.lost(prompt)
        if unknown:
            warn(
                f'this model does not know {", ".join(unknown)}, which will have no effect; '
                'st2v sample --list-words shows the words that it knows'
            )
        if lost:
            warn(f'the prompt is longer than 77 tokens and was cut; lost: "{lost}"')


def enhanced(
    enhancer: Enhancer,
    frames: Iterable[np.ndarray],
    prompt: str,
    progress: Progress,
    settings: RefineSettings,
    **options: Any,
) -> Iterator[np.ndarray]:
    """Yields the enhanced frames of a video in pieces [n, H, W, 3], with a bar for the steps and one for the writing.

    options: further arguments of `enhance`.
    """
    from st2v_jax.refinement.enhancer import enhance

    count = 0

    def read():
        nonlocal count
        for some in frames:
            yield some
            count += len(some)
        progress.stage('enhancing, compiling', settings.steps, 'steps')

    def on_step(step, steps):
        progress.to(step, f'enhancing step {step}/{steps}')
        if step == steps:
            progress.stage('writing', count)

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # warn_about_words has reported prompts that are cut
        pieces = enhance(enhancer, read(), prompt, on_step=on_step, **options, **dataclasses.asdict(settings))
    with contextlib.closing(pieces):  # temporary files go now, not when Python gets to it
        yield from pieces


def save(
    pieces: Iterable[np.ndarray], output: str, fps: float, metadata: dict[str, Any], progress: Progress, run: Run
) -> None:
    """Writes frames as they are made, keeps `run` up to date, and reports the finished file.

    pieces: iterator over frames [n, H, W, 3]; all of the work happens in it.
    metadata: what is stored in the file; its 'command' repeats the video.
    """
    run.again, run.target, run.written, video = metadata['command'], output, 'nothing was written', None
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
