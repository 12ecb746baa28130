"""Which prompt each chunk of a video takes, where the prompt changes on the way.

A chunk has one text: that of its first new frame. So a change takes effect with the first chunk that begins at its
frame or later. A blend goes from the states of one text to those of the next in equal steps, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # this imports jax, for which the command line does not wait
    from st2v_jax.models.contract import Contract


class Text(NamedTuple):
    """What a model is told at one moment: a prompt, or a point on the way from it to the following one.

    Attributes:
      prompt: the prompt in force; during a blend the one that is left.
      following: the prompt that a blend leads to; None where there is no blend.
      share: of the following prompt, above 0 and below 1 during a blend, else 0.
    """

    prompt: str
    following: str | None = None
    share: float = 0.0


@dataclass(frozen=True)
class PromptSchedule:
    """The prompts of one video; hashable.

    Raises ValueError for an empty prompt, for frames that are not in order, and for blends that run into each other.

    Attributes:
      prompt: of the beginning.
      changes: (frame, prompt) in the order of the frames, which count from 0.
      blend_frames: over how many frames each change is spread; 0 is at once.
    """

    prompt: str
    changes: tuple[tuple[int, str], ...] = ()
    blend_frames: int = 0

    def __post_init__(self):
        if not self.prompt.strip():
            raise ValueError('the prompt is empty: say in a sentence what the video shows')
        if self.blend_frames < 0:
            raise ValueError(f'a change of prompt is blended over 0 frames or more, not {self.blend_frames}')
        for frame, prompt in self.changes:
            if frame < 1:
                raise ValueError(
                    f'the prompt changes at frame 1 or later, not {frame}: the first frames have the first'
                )
            if not prompt.strip():
                raise ValueError(f'the prompt at frame {frame} is empty: say in a sentence what the video shows then')
        for (frame, _), (following, _) in pairwise(self.changes):
            if following <= frame:
                raise ValueError(
                    f'changes of the prompt are in the order of their frames, not {following} after {frame}'
                )
            if following < frame + self.blend_frames:
                raise ValueError(
                    f'a blend over {self.blend_frames} frames from frame {frame} is not over at frame {following},'
                    ' where the prompt changes again'
                )

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts in their order."""
        return self.prompt, *(prompt for _, prompt in self.changes)

    def at(self, frame: int, lasting: int = 1) -> Text:
        """The text of what begins at `frame` and lasts so many frames, such as a chunk's new ones.

        In a blend over n frames from frame f, what begins there has the share lasting / (n + lasting) of the following
        prompt, and what begins at f + n or later has all of it.
        """
        past = sum(begins <= frame for begins, _ in self.changes)
        if not past:
            return Text(self.prompt)
        share = (frame - self.changes[past - 1][0] + lasting) / (self.blend_frames + lasting)
        before, prompt = self.prompts[past - 1 : past + 1]
        return Text(prompt) if share >= 1 else Text(before, prompt, share)

    def of_chunk(self, contract: Contract, chunk: int) -> Text:
        """The text of a chunk, which counts from 0."""
        return self.at(first_new_frame(contract, chunk), contract.stride)

    def of_frame(self, contract: Contract, frame: int) -> Text:
        """The text of the chunk in which a frame is new."""
        return self.of_chunk(contract, contract.chunks(frame + 1) - 1)

    def check(self, num_frames: int, contract: Contract | None = None) -> None:
        """Raises ValueError for a change after the end of a video, or a prompt that is that of no chunk.

        contract: of the model that samples the video in chunks; None if nothing is known about chunks.
        """
        for frame, _ in self.changes:
            if frame >= num_frames:
                raise ValueError(
                    f'the prompt cannot change at frame {frame}: the last of {num_frames} frames is {num_frames - 1}'
                )
        if contract is None:
            return
        begins = [first_new_frame(contract, contract.chunks(frame)) for frame, _ in self.changes]
        for (frame, _), begun in zip(self.changes, begins, strict=True):
            if begun >= num_frames:
                last = first_new_frame(contract, contract.chunks(num_frames) - 1)
                raise ValueError(f'no chunk begins at frame {frame} or later: the last of the video begins at {last}')
        for number, (one, other) in enumerate(pairwise(begins)):
            if one == other:
                (frame, _), (following, _) = self.changes[number : number + 2]
                raise ValueError(f'the prompts at frames {frame} and {following} have one chunk, which begins at {one}')


def first_new_frame(contract: Contract, chunk: int) -> int:
    """The number of the first frame that a chunk adds; both count from 0."""
    return contract.frames_after(chunk) if chunk else 0


def as_schedules(prompts: str | PromptSchedule | Sequence[str | PromptSchedule]) -> list[PromptSchedule]:
    """One schedule for each video, at least one; a prompt alone does not change. Raises ValueError for an empty one."""
    listed = [prompts] if isinstance(prompts, str | PromptSchedule) else list(prompts)
    if not listed:
        raise ValueError('the prompt is empty: say in a sentence what the video shows')
    return [given if isinstance(given, PromptSchedule) else PromptSchedule(given) for given in listed]
