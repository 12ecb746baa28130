"""Prompts that change on the way: their options, files of JSON lines, and the line that a run says about them."""

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st2v_jax.errors import BadInput
from st2v_jax.storage.text import read_objects
from st2v_jax.streaming.prompt_schedule import PromptSchedule, first_new_frame
from st2v_jax.tokenizer import in_short

if TYPE_CHECKING:  # this imports jax, for which --help does not wait
    from st2v_jax.models.contract import Contract


def add_options(add: Callable) -> None:
    """Adds --at and --blend-frames with a parser's `add_argument`."""
    add(
        '--at',
        nargs=2,
        action='append',
        metavar=('FRAME', 'TEXT'),
        help='another prompt from this frame on; can be given several times',
    )
    add(
        '--blend-frames',
        type=int,
        default=0,
        metavar='N',
        help='frames over which the text changes to that of --at (default: 0, at once)',
    )


def from_options(arguments: Namespace) -> PromptSchedule:
    """The prompts of --prompt, --at and --blend-frames. Raises BadInput or ValueError for those that make no sense."""
    if arguments.blend_frames and not arguments.at:
        raise BadInput('--blend-frames goes with --at: without it the prompt does not change')
    changes = []
    for frame, prompt in arguments.at or []:
        if not re.fullmatch(r'-?\d{1,9}', frame):
            raise BadInput(f'--at takes the number of a frame and a prompt, not "{in_short(frame)}" as the number')
        changes.append((int(frame), prompt))
    return PromptSchedule(arguments.prompt, tuple(changes), arguments.blend_frames)


def from_file(file: str | Path) -> list[PromptSchedule]:
    """The prompts of videos, one in each line: {"prompt": "...", "at": [[96, "..."], ...], "blend_frames": 16}.

    All but the prompt may be missing. Raises ValueError with file and line for anything else.
    """
    schedules = []
    for number, line in read_objects(file):
        try:
            schedules.append(_of_line({'at': [], 'blend_frames': 0} | line))
        except ValueError as error:
            raise ValueError(f'{file}, line {number}: {error}') from None
    return schedules


def _of_line(line):
    match line:
        case {'prompt': str(prompt), 'at': list(at), 'blend_frames': int(blend_frames)} if len(line) == 3:
            if all(type(change) is list and [type(part) for part in change] == [int, str] for change in at):
                return PromptSchedule(prompt, tuple((frame, prompt) for frame, prompt in at), blend_frames)
    raise ValueError('it is not {"prompt": text, "at": [[frame, text], ...], "blend_frames": number}')


def spelled(schedule: PromptSchedule) -> dict[str, Any]:
    """The schedule as values of the options, for the command that repeats a run, and for the metadata of its file."""
    if not schedule.changes:
        return {'prompt': schedule.prompt}
    at = [list(change) for change in schedule.changes]
    return {'prompt': schedule.prompt, 'at': at, 'blend_frames': schedule.blend_frames}


def described(schedule: PromptSchedule, contract: 'Contract', num_frames: int) -> str:
    """One line that says with which chunk each change takes effect; chunks count from 1, frames from 0."""
    parts = [f'chunk 1 "{in_short(schedule.prompt)}"']
    for frame, prompt in schedule.changes:
        chunk, whole = contract.chunks(frame), contract.chunks(frame + schedule.blend_frames)
        part = f'from chunk {chunk + 1} (frame {first_new_frame(contract, chunk)}) "{in_short(prompt)}"'
        if whole > chunk and whole < contract.chunks(num_frames):
            part += f', in full from chunk {whole + 1} (frame {first_new_frame(contract, whole)})'
        elif whole > chunk:
            part += ', never in full'
        parts.append(part)
    return f'prompts: {"; ".join(parts)}'
