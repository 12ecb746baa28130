"""Branches: names for chunk ids, with what was asked for on the way."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st2v_jax.errors import SessionError
from st2v_jax.models.contract import Contract
from st2v_jax.sessions.given import Given
from st2v_jax.storage.atomic import write_bytes
from st2v_jax.storage.text import read_object
from st2v_jax.streaming.gate import OFF, Gate, times
from st2v_jax.streaming.prompt_schedule import PromptSchedule
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.tokenizer import in_short

MAIN = 'main'
NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]{0,63}')


@dataclass(frozen=True)
class Recipe:
    """What is asked for from one chunk of a branch on.

    Attributes:
      start: the number of that chunk, from 0.
      prompts: of the whole branch; frames count from the beginning of the video.
      negative_prompt: what guidance leads away from.
      seed: of the noise.
      settings: how it is sampled; decode_frames is not part of it and has its default.
      gate: what is done about chunks with a fault.
    """

    start: int
    prompts: PromptSchedule
    negative_prompt: str
    seed: int
    settings: SampleSettings
    gate: Gate = OFF

    def __post_init__(self):
        object.__setattr__(
            self, 'settings', dataclasses.replace(self.settings, decode_frames=SampleSettings.decode_frames)
        )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        values = dataclasses.asdict(self)
        if self.gate.action == 'off':
            del values['gate']
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`; raises KeyError, TypeError or ValueError for other values."""
        prompts = values['prompts']
        changes = tuple((frame, text) for frame, text in prompts['changes'])
        schedule = PromptSchedule(prompts['prompt'], changes, prompts['blend_frames'])
        settings, gate = SampleSettings(**values['settings']), Gate(**values.get('gate', {}))
        return cls(**values | {'prompts': schedule, 'settings': settings, 'gate': gate})


@dataclass(frozen=True)
class Branch:
    """A line of chunks in the tree.

    Attributes:
      name: letters, digits, - and _.
      recipes: what is asked for, in the order of their starts; the first begins at 0.
      chunks: the ids of the chunks that are made.
      num_frames: the length that was asked for; its last chunk may have more frames. Given frames do not count.
      given: what it starts from; None is text alone.
      draws: the number of the draw that is kept of each chunk whose gate re-rolls, up to the last one that is decided.
    """

    name: str
    recipes: tuple[Recipe, ...]
    chunks: tuple[str, ...] = ()
    num_frames: int = 1
    given: Given | None = None
    draws: tuple[int, ...] = ()

    @property
    def asked(self) -> str:
        """What was asked for last, in words."""
        recipe = self.recipes[-1]
        settings, prompt = recipe.settings, in_short(recipe.prompts.prompts[-1])
        scales = f'guidance {settings.guidance_text:g} and {settings.guidance_anchor:g}'
        without = f', without "{in_short(recipe.negative_prompt)}"' if recipe.negative_prompt else ''
        again = f', drawn again up to {times(recipe.gate.redraws)}' if recipe.gate.redraws else ''
        return f'"{prompt}", seed {recipe.seed}, {settings.steps} steps, {scales}{without}{again}'

    @property
    def goes_on(self) -> bool:
        """Whether it goes on from given frames, so that its chunk 0 is like the later ones."""
        return self.given is not None and not self.given.is_picture

    def counted(self, contract: Contract) -> Contract:
        """The contract by which the chunks and frames of this branch are counted."""
        return dataclasses.replace(contract, given=self.goes_on)

    def recipe(self, number: int) -> Recipe:
        """What is asked for in a chunk."""
        return next(recipe for recipe in reversed(self.recipes) if recipe.start <= number)

    def draw(self, number: int) -> int:
        """Which draw of a chunk is kept, as far as it is decided."""
        return self.draws[number] if number < len(self.draws) else 0

    def decided(self, number: int) -> bool:
        """Whether it is decided which draw of a chunk is kept."""
        return number < len(self.draws) or not self.recipe(number).gate.redraws

    def keeping(self, number: int, draw: int) -> Branch:
        """The branch with a draw of a chunk decided."""
        earlier = tuple(self.draw(n) for n in range(number))
        return dataclasses.replace(self, draws=(*earlier, draw))

    def upto(self, number: int) -> tuple[Recipe, ...]:
        """The recipes of the chunks before `number`."""
        return tuple(recipe for recipe in self.recipes if recipe.start < number)


def save(folder: Path, branch: Branch) -> None:
    """Writes a branch whole or not at all."""
    values = {'num_frames': branch.num_frames, 'recipes': [recipe.to_dict() for recipe in branch.recipes]}
    if branch.given is not None:
        values['given'] = branch.given._asdict()
    if branch.draws:
        values['draws'] = branch.draws
    text = json.dumps(values | {'chunks': branch.chunks}, indent=1, ensure_ascii=False)
    write_bytes(folder / f'{branch.name}.json', f'{text}\n'.encode())


def load(folder: Path, name: str) -> Branch:
    """Reads a branch; raises SessionError with the names that there are, or for a file that is not one of ours."""
    check_name(name)
    file = folder / f'{name}.json'
    if not file.is_file():
        raise SessionError(f'there is no branch {name} in {folder.parent}; it has {", ".join(names(folder)) or "none"}')
    try:
        values = read_object(file)
        recipes = tuple(Recipe.from_dict(recipe) for recipe in values['recipes'])
        given = Given(**values['given']) if 'given' in values else None
        draws = tuple(values.get('draws', ()))
        return Branch(name, recipes, tuple(values['chunks']), values['num_frames'], given, draws)
    except (ValueError, KeyError, TypeError) as error:
        raise SessionError(f'{file} is damaged: {error}') from error


def names(folder: Path) -> list[str]:
    """The names of all branches, the main one first."""
    found = [file.stem for file in folder.glob('*.json') if NAME.fullmatch(file.stem)]
    return sorted(found, key=lambda name: (name != MAIN, name))


def check_name(name: str) -> None:
    """Raises SessionError for what cannot be the name of a branch."""
    if not NAME.fullmatch(name):
        raise SessionError(f'a branch has a name of up to 64 letters, digits, - and _, not {name!r}')
