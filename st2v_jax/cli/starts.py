"""What a video starts from besides its prompt: the options of sample, and reading it before any model is loaded."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from st2v_jax.cli import options
from st2v_jax.cli.progress import warn
from st2v_jax.errors import BadInput
from st2v_jax.video_io.start import Start, read_start

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
        help='go on from this video, folder of frames or picture; --num-frames counts the new frames',
    )
    add('--anchor', metavar='PICTURE', help='the picture that all chunks look at (default: the first frame of --start)')
    add('--only-new', action='store_true', help='leave out the frames of --start, which otherwise lead the output')
    add('--crop', action='store_true', help='cut off what does not fit the size of frames (default: black borders)')


def check(arguments: Namespace) -> None:
    """Raises BadInput for options that do not go together."""
    if arguments.start is None:
        for name in ('anchor', 'only_new', 'crop'):
            if getattr(arguments, name):
                raise BadInput(f'--{name.replace("_", "-")} goes with --start')
        return
    if arguments.enhance:
        raise BadInput('--enhance does not go with --start: make the video, and then st2v enhance')
    if arguments.plan:
        raise BadInput('--plan does not go with --start: a video from text alone takes as much')


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
    return dataclasses.replace(contract, given=start is not None)


def leading(start: Start | None) -> list[np.ndarray]:
    """The pieces uint8 [n, H, W, 3] that lead a video which goes on from a start, none without one."""
    return [] if start is None else [start.frames]
