"""What sample and enhance share: the device's name, warnings about prompts, the refinement stage, the file."""

import contextlib
import dataclasses
import os
import warnings

from st2v_jax import video_io
from st2v_jax.cli.progress import warn


def name_device():
    """Prints what the networks compute on, and in which type."""
    import jax

    device = jax.local_devices()[0]
    if device.platform == 'cpu':
        text = f'CPU with {os.cpu_count()} cores, computing in float32'
    else:
        text = f'{device.device_kind} ({device.platform}), computing in bfloat16'
    print(f'device: {text}', flush=True)


def warn_about_words(tokenizer, prompts):
    """Names the words that the model never saw and those that do not fit, prompt by prompt."""
    for prompt in dict.fromkeys(prompts):
        unknown, lost = tokenizer.unknown_words(prompt), tokenizer.lost(prompt)
        if unknown:
            warn(
                f'this model never saw {", ".join(unknown)} and will ignore it; '
                'st2v sample --list-words shows what it knows'
            )
        if lost:
            warn(f'the prompt is longer than 77 tokens and was cut; lost: "{lost}"')


def enhanced(enhancer, frames, prompt, progress, settings, **options):
    """Iterator over the enhanced frames of pieces [n,H,W,3], with a bar for the steps and one for what is written.

    settings: a RefineSettings. options: more of `enhance`.
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
        warnings.simplefilter('ignore', UserWarning)  # a cut prompt has been reported in this program's own words
        pieces = enhance(enhancer, read(), prompt, on_step=on_step, **options, **dataclasses.asdict(settings))
    yield from pieces


def save(pieces, output, fps, metadata, progress, run):
    """Writes frames as they are made, tells `run` how far that is, and says so in the end.

    pieces: iterator over frames [n,H,W,3]; all of the work happens in it.
    metadata: what is stored in the file; its 'command' makes the video again.
    """
    run.again, run.target, run.written, video = metadata['command'], output, 'nothing was written', None
    with contextlib.ExitStack() as stack:
        stack.enter_context(progress)
        for frames in pieces:
            if video is None:  # only now: a run that fails earlier leaves an existing file as it was
                size = frames.shape[1:3]
                video = stack.enter_context(video_io.VideoWriter(output, fps, size, metadata))
            video.write(frames)
            progress.to(video.frames)
            run.written = f'{video.frames} of {progress.total} frames are in {output}'
    if not progress.quiet:
        print(f'saved {output} ({video.frames} frames, {video.frames / fps:.1f} s); again: {run.again}', flush=True)
