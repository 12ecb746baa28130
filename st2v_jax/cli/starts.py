"""What a video starts from besides its prompt: the options of sample, and reading it before any model is loaded."""

from __future__ import annotations

import dataclasses
import os
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from st2v_jax.cli import options
from st2v_jax.cli.progress import warn
from st2v_jax.errors import BadInput
from st2v_jax.video_io.start import Start, read_start, shows_picture

if TYPE_CHECKING:  # these import jax, for which --help does not wait
    import numpy as np

    from st2v_jax.models.build import ModelConfig
    from st2v_jax.models.contract import Contract
    from st2v_jax.open_model import OpenModel


def add_options(add: Callable) -> None:
    """Adds --size, --start and the options that go with it, with a parser's `add_argument`."""
    add(
        '--size',
        type=options.frame_size,
        metavar='HxW',
        help='height and width of the frames in pixels (default: what the model was trained at)',
    )
    add(
        '--start',
        metavar='PATH',
        help='go on from this video or folder of frames, which --num-frames does not count; or begin with this picture',
    )
    add(
        '--anchor', metavar='PICTURE', help='the picture that all chunks look at (default: the first frame of the clip)'
    )
    add('--only-new', action='store_true', help='leave out the frames of the clip, which otherwise lead the output')
    add('--crop', action='store_true', help='cut off what does not fit the size of frames (default: black borders)')


def check(arguments: Namespace) -> None:
    """Raises BadInput for options that do not go together, and for an output that would replace the start."""
    if arguments.start is None:
        for name in ('anchor', 'only_new', 'crop'):
            if getattr(arguments, name):
                raise BadInput(f'--{name.replace("_", "-")} goes with --start')
        return
    if shows_picture(arguments.start):
        for name in ('anchor', 'only_new'):
            if getattr(arguments, name):
                raise BadInput(f'--{name.replace("_", "-")} goes with a clip: a picture is the first frame itself')
    for given in (arguments.start, arguments.anchor):
        if given and arguments.output and _same(given, arguments.output):
            raise BadInput(f'{arguments.output} is what the video starts from: choose another --output')
    if arguments.enhance:
        raise BadInput('--enhance does not go with --start: make the video, and then st2v enhance')
    if arguments.plan:
        raise BadInput('--plan does not go with --start: a video from text alone takes as much')


def _same(one, other):
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def read(arguments: Namespace, opened: OpenModel, config: ModelConfig) -> Start | None:
    """What the video starts from, None without --start; raises BadInput or InputError for what no video starts from.

    config: of the opened model, with the size of frames that was asked for.
    """
    if arguments.start is None:
        return None
    if 'cam' not in opened.networks:
        raise BadInput('--start needs a model with CAM, and this one has none')
    if arguments.anchor is not None and config.apm is None:
        raise BadInput('--anchor needs a model with APM, and this one has none')
    start = read_start(
        arguments.start,
        config.frame_size,
        fps=arguments.fps,
        memory=config.memory,
        anchor=arguments.anchor,
        crop=arguments.crop,
    )
    for note in start.notes:
        warn(note)
    return start


def counted(contract: Contract, start: Start | None) -> Contract:
    """The contract by which the chunks and frames of a video with this start are counted."""
    return dataclasses.replace(contract, given=start is not None and not start.is_picture)


def leading(start: Start | None) -> list[np.ndarray]:
    """The pieces uint8 [n, H, W, 3] that lead a video with this start; a picture is part of the first chunk."""
    return [] if start is None or start.is_picture else [start.frames]
