"""A session: a folder that holds a video as a tree of chunks.

    session = Session.create('ball', model)
    session.start(Recipe(0, PromptSchedule('a red ball bounces'), '', 7, model.settings()), num_frames=48)
    for step in session.extend('main'):     # makes what is missing; a thread may drive it, and stop between steps
        print(step.chunk, step.step, step.steps)
    for frames in session.frames('main'):   # [n, H, W, 3] in [-1, 1]
        ...

A chunk is a pure function of what its id is the hash of, so whoever asks for the same gets the chunk that is there.
What is in the folder:

    session.json            the model, the size of frames, the type that networks compute in
    branches/NAME.json      what a branch was asked for, and the ids of its chunks
    chunks/ID.safetensors   latents, the anchor embedding, and all that the id is the hash of
    given/ID.safetensors    pixels of the clip or the picture that branches start from
    journal.jsonl           what was done when, on which device
    hashes.json             hashes of the files of weights, with the sizes and times of these

Another kind of node, such as an enhanced video, is named by `fingerprint.digest` of its own inputs, which name the leaf
that it was made of, and has a folder of its own beside `chunks`.
"""

import dataclasses
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax import stopping
from st2v_jax.errors import SessionError
from st2v_jax.models.system import Prompt
from st2v_jax.sessions import about, branches, chunks, fingerprint, given, journal, making
from st2v_jax.sessions.branches import Branch, Recipe
from st2v_jax.sessions.chunks import Damaged
from st2v_jax.sessions.inputs import encoded, inputs_of, same
from st2v_jax.sessions.making import Step
from st2v_jax.streaming import stream as streaming
from st2v_jax.streaming.generate import Model, check_seeds
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.video_io.start import Start


class Taken(SessionError):
    """The session, or the branch, was asked for something else before."""


class Session:
    """A session on disk; see the head of this module.

    One process at a time may change it: what writes is for within `with about.writing(folder):`.

    Args:
      folder: that `create` made.
      model: as from `load`; None for what needs no networks.
      decode_frames: frames decoded at once, see SampleSettings; it may differ from run to run.
      tell: is called with one line about what a user should know, such as a damaged chunk that is made again.

    Raises:
      SessionError: if the folder is not a session, or one of another model.
    """

    def __init__(
        self,
        folder: str | Path,
        model: Model | None = None,
        *,
        decode_frames: int = SampleSettings.decode_frames,
        tell: Callable[[str], None] = warnings.warn,
    ):
        self.folder, self.decode_frames, self.tell = Path(folder), decode_frames, tell
        self.about = about.read(self.folder)
        self._chunks, self._branches = self.folder / 'chunks', self.folder / 'branches'
        self._model, self._encoded = None, (None, None)
        if model is not None:
            about.check(self.folder, self.about, model)
            self._model = dataclasses.replace(model, params=jax.device_put(model.params))

    @classmethod
    def create(cls, folder: str | Path, model: Model, **options: Any) -> 'Session':
        """Makes an empty session in a folder that is new or empty; options: as for Session."""
        about.create(Path(folder), model)
        return cls(folder, model, **options)

    @property
    def model(self) -> Model:
        """The model; raises SessionError where the session was opened without one."""
        if self._model is None:
            raise SessionError(f'{self.folder} was opened without a model')
        return self._model

    def names(self) -> list[str]:
        """The names of all branches, the main one first."""
        return branches.names(self._branches)

    def branch(self, name: str = branches.MAIN) -> Branch:
        """A branch; raises SessionError if there is none of that name."""
        return branches.load(self._branches, name)

    def chunk(self, id: str) -> chunks.Stored:
        """A chunk; raises Damaged unless its file is whole."""
        return chunks.read(self._chunks, id)

    def journal(self) -> list[dict[str, Any]]:
        """What was done, in its order: entries with a 'time' in seconds since 1970."""
        return journal.read(self.folder / 'journal.jsonl')

    def start(
        self,
        *recipes: Recipe,
        num_frames: int,
        name: str = branches.MAIN,
        start: Start | None = None,
        draws: tuple[int, ...] = (),
    ) -> Branch:
        """The branch of recipes, made or found; of a branch that is there only the length changes.

        Args:
          recipes: in the order of their starts, of which the first is 0.
          num_frames: its length; the frames of a clip that it goes on from are not counted.
          name: of the branch.
          start: the clip or the picture that it starts from; None is text alone.
          draws: of a new branch, which draw of each chunk is kept, where that is known.

        Raises Taken if a branch of that name was asked for something else.
        """
        check_seeds([recipe.seed for recipe in recipes])
        branches.check_name(name)
        known = None if start is None else given.given(start)
        if name not in self.names():
            if start is not None:
                with about.named(self.folder):
                    given.write(self.folder, start)
            return self.save(Branch(name, recipes, num_frames=num_frames, given=known, draws=draws))
        found = self.branch(name)
        if found.given != known:
            told = 'text alone' if found.given is None else 'other frames'
            raise SessionError(f'{self.folder} starts from {told}: another start has a session of its own')
        if not same(found.recipes, recipes, self.model.tokenizer):
            raise Taken(f'{self.folder} was asked for something else: {found.asked}')
        pairs = zip(found.recipes, recipes, strict=True)  # gates may differ in what they tell
        recipes = tuple(dataclasses.replace(one, gate=other.gate) for one, other in pairs)
        return self.save(dataclasses.replace(found, recipes=recipes, num_frames=num_frames))

    def fork(self, source: str, at: int, *, name: str | None = None, **changes: Any) -> Branch:
        """A branch that shares the chunks before chunk `at` with another one, and asks for something else from there.

        What is asked for again is found again: so a command that was killed goes on when it is repeated.

        Args:
          source: the name of the other branch.
          at: a chunk that it has, or the one after its last.
          name: of the new branch; None numbers it, as in `main-7`.
          changes: fields of Recipe with other values, at least one.

        Raises:
          SessionError: if there is no such chunk, or the name is taken.
        """
        origin = self.branch(source)
        if not 0 <= at <= len(origin.chunks):
            raise SessionError(f'{source} has {len(origin.chunks)} chunks, which are numbered from 0: there is no {at}')
        recipe = dataclasses.replace(origin.recipe(at), start=at, **changes)
        check_seeds([recipe.seed])
        recipes = (*origin.upto(at), recipe)
        begun = {'chunks': origin.chunks[:at], 'draws': origin.draws[:at]}
        wanted = dataclasses.replace(origin, name='', recipes=recipes, **begun)
        stem = f'{source}-{at}'
        candidates = [name] if name else (stem if n == 1 else f'{stem}-{n}' for n in itertools.count(1))
        for candidate in candidates:
            branches.check_name(candidate)
            if candidate not in self.names():
                return self.save(dataclasses.replace(wanted, name=candidate))
            found = self.branch(candidate)
            alike = found.chunks[:at] == wanted.chunks and found.given == wanted.given
            if alike and same(found.recipes, wanted.recipes, self.model.tokenizer):
                return found
        raise Taken(f'the branch {name} was asked for something else: {self.branch(name).asked}')

    def unused_seed(self, source: str, at: int) -> int:
        """The seed of a re-roll of the chunks from `at` on: the next that no branch with the same beginning has there,
        or that of a re-roll which was not finished."""
        origin = self.branch(source)
        beginning, seed = origin.chunks[:at], origin.recipe(at).seed
        alike = [self.branch(name) for name in self.names()]
        alike = [branch for branch in alike if branch.chunks[:at] == beginning]
        while True:
            seed = (seed + 1) % 2**32
            taken = [branch for branch in alike if branch.recipe(at).seed == seed]
            if all(self.missing(branch) for branch in taken):
                return seed

    def append(self, name: str, *, num_frames: int | None = None, **changes: Any) -> Branch:
        """Asks for a longer branch, and for something else from its end on.

        Args:
          name: of the branch.
          num_frames: its new length; None leaves it.
          changes: fields of Recipe with other values, for the chunks that are not made yet.
        """
        branch = self.branch(name)
        end = len(branch.chunks)
        recipe = dataclasses.replace(branch.recipe(end), **changes)
        recipes = branch.recipes
        if recipe != branch.recipe(end):
            recipes = (*branch.upto(end), dataclasses.replace(recipe, start=end))
        return self.save(dataclasses.replace(branch, recipes=recipes, num_frames=num_frames or branch.num_frames))

    def missing(self, branch: Branch) -> int:
        """How many chunks of a branch are not made yet."""
        return max(0, self._contract(branch).chunks(branch.num_frames) - len(branch.chunks))

    def extend(self, name: str = branches.MAIN) -> Iterator[Step]:
        """Makes the chunks of a branch that are missing, damaged or not made yet; yields after each denoising step.

        A chunk with a fault is told, or drawn again, as its recipe's gate says. A chunk is stored before its last Step
        is yielded. Whoever stops to ask for steps loses the chunk in work only, or the draw of it.

        Raises SessionError for a branch that the session's model cannot continue.
        """
        branch, model = self.branch(name), self.model
        planned = inputs_of(branch, model, self.about)
        if (len(planned) > 1 or branch.goes_on) and 'cam' not in model.params:
            raise SessionError(f'without CAM and APM there is one chunk of {model.max_frames} frames')
        self.planned(branch)
        return making.extend(self, branch)

    def planned(self, branch: Branch) -> list[str]:
        """The ids of all chunks of a branch, made or not; raises SessionError if those that are made have others.

        Of chunks that are not decided, and of those after them, it is what they have if the first draw is kept.
        """
        ids = [fingerprint.digest(inputs) for inputs in inputs_of(branch, self.model, self.about)]
        if branch.chunks != tuple(ids[: len(branch.chunks)]):
            raise SessionError(f'{self.folder} was made by another version of st2v_jax, whose chunks have other ids')
        return ids

    def whole(self, id: str, number: int | None = None) -> bool:
        """Whether the file of a chunk is there and not damaged; with the number of the chunk, damage is told."""
        try:
            self.chunk(id)
        except Damaged as error:
            if number is not None and chunks.path_of(self._chunks, id).exists():
                self.tell(f'{error}; chunk {number} is made again')
            return False
        return True

    def there(self, branch: Branch) -> list[bool]:
        """Which chunks of a branch are made: it is decided which draw is kept, and that is whole."""
        return [branch.decided(number) and self.whole(id) for number, id in enumerate(self.planned(branch))]

    def frames(self, name: str = branches.MAIN) -> Iterator[np.ndarray]:
        """The frames of a branch that are made, [n, H, W, 3] in [-1, 1], chunk by chunk, up to its length."""
        branch = self.branch(name)
        left = branch.num_frames
        for number, id in enumerate(branch.chunks):
            stopping.check()
            if left <= 0:
                return
            frames = np.asarray(self.decoded(branch, number, id)[0])
            yield frames[:left]
            left -= len(frames)

    def given(self, branch: Branch) -> Start | None:
        """What a branch starts from; raises SessionError if its pixels are missing or damaged."""
        return None if branch.given is None else given.read(self.folder, branch.given)

    def note_export(self, branch: Branch, output: str | Path, fps: float, only_new: bool = False) -> None:
        """Writes into the journal that a file of a branch is complete; see `exported`."""
        with suppress(OSError):  # a session that is read-only can be exported too
            journal.add(self.folder / 'journal.jsonl', exported=self._export(branch, output, fps, only_new))

    def exported(self, branch: Branch, output: str | Path, fps: float, only_new: bool = False) -> bool:
        """Whether the file of a branch at this place is complete, and has not been changed since.

        only_new: whether the frames that the branch goes on from are left out of it.
        """
        if not os.path.isfile(output) or not branch.chunks:
            return False
        return self._export(branch, output, fps, only_new) in [entry.get('exported') for entry in self.journal()]

    def _export(self, branch, output, fps, only_new):
        about = os.stat(output)
        stamp = {'size': about.st_size, 'mtime_ns': about.st_mtime_ns}
        last = self._contract(branch).chunks(branch.num_frames)
        leaf = {'leaf': branch.chunks[:last][-1], 'num_frames': branch.num_frames, 'fps': fps}
        leaf |= {'only_new': True} if only_new else {}
        return {'file': os.path.abspath(output)} | leaf | stamp

    def remove(self, name: str) -> None:
        """Removes a branch; its chunks stay until `prune`. Raises SessionError for the main one."""
        self.branch(name)
        if name == branches.MAIN:
            raise SessionError(f'{name} is what the session is about; to remove it, delete {self.folder}')
        (self._branches / f'{name}.json').unlink()
        journal.add(self.folder / 'journal.jsonl', removed=name)

    def prune(self) -> tuple[int, int]:
        """Removes the chunks that no branch leads to; returns how many, and their bytes."""
        kept = {id for name in self.names() for id in self.branch(name).chunks}
        gone = [file for file in self._chunks.iterdir() if chunks.NAME.fullmatch(file.name) and file.stem not in kept]
        unused = given.unused(self.folder, [self.branch(name).given for name in self.names()])
        size = sum(file.stat().st_size for file in (*gone, *unused))
        for file in (*gone, *unused):
            file.unlink()
        if gone:
            journal.add(self.folder / 'journal.jsonl', pruned=[file.stem for file in gone])
        return len(gone), size

    def again(self, branch: Branch, number: int) -> streaming.Chunk:
        """A chunk made once more from the chunks before it; nothing is written."""
        return making.again(self, branch, number)

    def settings(self, branch: Branch, number: int) -> SampleSettings:
        """How a chunk is sampled."""
        return dataclasses.replace(branch.recipe(number).settings, decode_frames=self.decode_frames)

    def prompt(self, branch: Branch, number: int) -> Prompt:
        """What a chunk is told; encoded once for all chunks in a row that are told the same."""
        recipe = branch.recipe(number)
        told = recipe.prompts.of_chunk(self._contract(branch), number), recipe.negative_prompt
        if self._encoded[0] != told:
            self._encoded = told, encoded(self.model, *told)
        return self._encoded[1]

    def _contract(self, branch):
        return branch.counted(self.model.config.contract)

    def decoded(self, branch: Branch, number: int, id: str) -> jax.Array:
        """Frames [1, n, H, W, 3] of a stored chunk, by the program that sampling decodes with."""
        run = streaming.programs(self.model.system, self.settings(branch, number))
        return run.decode(self.model.params, jnp.asarray(self.chunk(id).latents))

    def save(self, branch: Branch) -> Branch:
        """Writes a branch whole or not at all, and returns it."""
        branches.save(self._branches, branch)
        return branch
