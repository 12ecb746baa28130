"""What a video starts from besides its prompt: the options of sample, and reading it before any model is loaded."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from st2v_jax.cli.progress import warn
from st2v_jax.errors import BadInput
from st2v_jax.video_io.start import Start, read_start, shows_picture

if TYPE_CHECKING:  # this imports jax, for which --help does not wait
    from st2v_jax.open_model import OpenModel


def add_options(add: Callable) -> None:
    """Adds --start and the options that go with it, with a parser's `add_argument`."""
    add(
        '--start',
        metavar='PATH',
        help='go on from this video, folder of pictures or picture; --num-frames counts the new frames',
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


def read(arguments: Namespace, opened: OpenModel) -> Start | None:
    """What the video starts from, None without --start; raises BadInput or InputError for what no video starts from."""
    if arguments.start is None:
        return None
    contract = opened.config.contract
    if 'cam' not in opened.networks:
        raise BadInput('--start needs a model with CAM, and this one has none')
    if arguments.anchor is not None and opened.config.apm is None:
        raise BadInput('--anchor needs a model with APM, and this one has none')
    start = read_start(
        arguments.start,
        contract.frame_size,
        fps=arguments.fps,
        memory=contract.memory,
        anchor=arguments.anchor,
        crop=arguments.crop,
    )
    for note in start.notes:
        warn(note)
    return start
