"""A folder of sessions, as the page works on it: what each button does, as functions that change sessions on disk.

All that is asked for is in a session before the work begins, and the work is `Session.extend` or an enhancement, which
go on after a kill. So nothing is lost with the process, but the order of the queue.
"""

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from st2v_jax.errors import BadInput, SessionError
from st2v_jax.refinement.enhancer import load_enhancer
from st2v_jax.sessions import about, branches, enhanced
from st2v_jax.sessions.branches import Branch, Recipe
from st2v_jax.sessions.session import Session
from st2v_jax.storage.names import fit
from st2v_jax.streaming.generate import Model, check_seeds
from st2v_jax.streaming.prompt_schedule import PromptSchedule
from st2v_jax.tokenizer import in_short, lost_message
from st2v_jax.video_io import read_metadata
from st2v_jax.video_io.start import Start
from st2v_jax.web.preview import preview
from st2v_jax.web.seen import Seen, write_video
from st2v_jax.web.turns import Job, Progress, Turns, words

FPS = 8.0
MOST_FRAMES = 14_400  # half an hour
LONGEST_PROMPT = 1000  # letters
WATCHED = 5.0  # seconds after which a page that asks for nothing is closed
EACH = 1.0  # seconds between two previews


class _Paused(Exception):
    """An enhancement was told to stop."""


class Studio:
    """The sessions in a folder, with the model that makes them.

    Args:
      folder: where sessions lie, each in a folder of its own; it is made if it is not there.
      model: of all sessions that are made here; those of other models can be watched only.
      decode_frames: frames decoded at once, as for Session.
    """

    def __init__(self, folder: str | Path, model: Model, decode_frames: int):
        self.folder, self.model, self._decode_frames = Path(folder).resolve(), model, decode_frames
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seen, self.turns = Seen(self.folder, FPS), Turns(self.told)
        self._lock, self._held, self._watched = threading.RLock(), {}, {}

    def names(self) -> list[str]:
        """The names of all sessions, the newest first."""
        found = [file for file in self.folder.iterdir() if branches.NAME.fullmatch(file.name) and about.exists(file)]
        return [file.name for file in sorted(found, key=_begun, reverse=True)]

    def place(self, name: str) -> Path:
        """The folder of a session; raises SessionError for what is none, wherever such a name would lead."""
        if not branches.NAME.fullmatch(name) or not about.exists(self.folder / name):
            raise SessionError(f'there is no video {in_short(name)!r}')
        return self.folder / name

    def session(self, name: str, tell: Callable[[str], None] = print) -> Session:
        """A session with the model; raises SessionError if it is one of another model."""
        return Session(self.place(name), self.model, decode_frames=self._decode_frames, tell=tell)

    def told(self, error: Exception) -> str:
        """The message of an error in one line, without saying where the folder is."""
        return words(error).replace(f'{self.folder}/', '')

    def notes_on(self, prompt: str) -> list[str]:
        """What a user should know about a prompt; raises BadInput if the model understands nothing of it."""
        tokenizer = self.model.tokenizer
        if len(prompt) > LONGEST_PROMPT:
            raise BadInput(f'a prompt has at most {LONGEST_PROMPT} letters, not {len(prompt)}')
        PromptSchedule(prompt)  # raises for an empty one
        if not tokenizer.reaches(prompt):
            raise BadInput(f'the model understands nothing of "{in_short(prompt)}"')
        notes, unknown, lost = [], tokenizer.unknown_words(prompt), tokenizer.lost(prompt)
        if unknown:
            notes.append(f'the model does not know {in_short(", ".join(unknown))}, which will have no effect')
        return notes + [lost_message(lost)] * bool(lost)

    def make(self, prompt: str, num_frames: int, seed: int, start: Start | None = None) -> str:
        """Begins a video in a session of its own, and returns its name."""
        self.notes_on(prompt)
        check_seeds([seed])
        _check_frames(num_frames)
        if num_frames > self.model.max_frames:
            raise BadInput(f'without CAM and APM there is one chunk of {self.model.max_frames} frames')
        asked = Recipe(0, PromptSchedule(prompt), '', seed, self.model.settings())
        with self._lock:
            name = self._unused(prompt)
            with self._changing(name):
                session = Session.create(self.folder / name, self.model, decode_frames=self._decode_frames)
                session.start(asked, num_frames=num_frames, start=start)
        self._make(name, branches.MAIN)
        return name

    def go_on(self, name: str, branch: str, prompt: str = '', num_frames: int | None = None) -> None:
        """Makes what is missing of a branch, with another prompt from the next chunk on, or up to another length.

        The next chunk is the first that is not stored: one that is in work begins again.
        """
        there = self.session(name).branch(branch)
        asked = there.recipe(len(there.chunks)).prompts
        changes = {'prompts': PromptSchedule(prompt)} if prompt.strip() and PromptSchedule(prompt) != asked else {}
        if changes:
            self.notes_on(prompt)
        if num_frames is not None:
            _check_frames(num_frames)
        if changes or num_frames not in (None, there.num_frames):
            self.turns.stop((name, branch), wait=True)
            with self._changing(name):
                self.session(name).append(branch, num_frames=num_frames, **changes)
        session = self.session(name)
        if not session.missing(session.branch(branch)):
            raise BadInput(f'all {session.branch(branch).num_frames} frames are made: ask for more')
        self._make(name, branch)

    def pause(self, name: str, branch: str) -> None:
        """Stops the work on a branch at its next step: of a chunk that is in work nothing is kept."""
        self.turns.stop((name, branch))

    def reroll(self, name: str, branch: str, chunk: int) -> str:
        """Makes the chunks from one on again with the next seed that was not tried; returns the name of the branch."""
        with self._changing(name):
            session = self.session(name)
            seed = session.unused_seed(branch, chunk)
            made = session.fork(branch, chunk, name=f'{branch}-{chunk}-seed{seed}', seed=seed)
        self._make(name, made.name)
        return made.name

    def fork(self, name: str, branch: str, chunk: int, prompt: str) -> str:
        """Makes the chunks from one on with another prompt; returns the name of the branch."""
        self.notes_on(prompt)
        with self._changing(name):
            made = self.session(name).fork(branch, chunk, prompts=PromptSchedule(prompt))
        self._make(name, made.name)
        return made.name

    def enhance(self, name: str, branch: str) -> None:
        """Makes the enhanced video of a branch, which is complete."""
        session = self.session(name)
        if session.missing(session.branch(branch)):
            raise BadInput('an enhanced video is made of all chunks: make the missing ones first')
        job = Job((name, branch), progress=Progress(None, 0, 1))
        job.steps = self._enhancing(job)
        self.turns.add(job)

    def enhanced_file(self, name: str, branch: Branch) -> Path | None:
        """The file of the enhanced video of what a branch is now; None where there is none."""
        file = self.place(name) / f'{branch.name}-enhanced.mp4'
        if not file.is_file() or not branch.chunks:
            return None
        last = branch.counted(self.model.config.contract).chunks(branch.num_frames)
        leaf = f'{branch.chunks[:last][-1]}/{branch.num_frames}'
        known = read_metadata(file).get('enhanced')
        return file if isinstance(known, dict) and known.get('video') == leaf else None

    def watch(self, name: str) -> None:
        """Notes that a page shows a session: for one that nobody watches no previews are made."""
        self._watched[name] = time.monotonic()

    def close(self) -> None:
        """Stops all work at its next step."""
        self.turns.close()

    def _make(self, name, branch):
        job = Job((name, branch))
        job.steps = self._extending(job)
        self.turns.add(job)

    def _extending(self, job) -> Iterator[bool]:
        name, branch = job.key
        with self._changing(name):
            session = self.session(name, tell=job.notes.append)
            shown = 0.0
            for step in session.extend(branch):
                job.progress = Progress(step.chunk, step.step, step.steps)
                if step.frames is not None:
                    job.preview = None
                    self.seen.keep(session.branch(branch).chunks[step.chunk], step.frames)
                elif time.monotonic() - shown > EACH and time.monotonic() - self._watched.get(name, 0.0) < WATCHED:
                    number = job.preview[0] + 1 if job.preview else 1
                    job.preview, shown = (number, preview(session, branch, step)), time.monotonic()
                yield step.frames is not None

    def _enhancing(self, job) -> Iterator[bool]:
        name, branch = job.key

        def on_step(step, steps):
            job.progress = Progress(None, step, steps)
            if job.stopped:
                raise _Paused

        with self._changing(name), contextlib.suppress(_Paused):
            session = self.session(name, tell=job.notes.append)
            enhancer = load_enhancer(self.model.source, session.about['dtype'])
            profile = enhancer.config.profile
            node = enhanced.node(session, branch, enhancer, enhancer.settings(variant=profile), profile=profile)
            metadata = {'prompt': node.prompts.prompt, 'enhanced': {'video': node.leaf, **node.made_of}}
            pieces = enhanced.enhance_branch(session, branch, enhancer, on_step=on_step)
            with contextlib.closing(pieces), self.seen.folder_of_its_own() as folder:
                draft = folder / 'enhanced.mp4'
                write_video(draft, pieces, FPS, metadata)
                draft.replace(session.folder / f'{branch}-enhanced.mp4')
        yield True

    @contextlib.contextmanager
    def _changing(self, name):
        """Keeps other processes from changing a session while threads of this one do."""
        with self._lock:
            if name not in self._held:
                stack = contextlib.ExitStack()
                stack.enter_context(about.writing(self.folder / name))
                self._held[name] = [stack, 0]
            self._held[name][1] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[name][1] -= 1
                if not self._held[name][1]:
                    self._held.pop(name)[0].close()

    def _unused(self, prompt):
        """A name for a session, made of its prompt."""
        words = re.sub(r'[^a-z0-9]+', '-', prompt.lower()).strip('-')
        stem = fit(words, longest=40).rstrip('-') or 'video'
        taken = {file.name for file in self.folder.iterdir()}
        names = (stem if n == 1 else f'{stem}-{n}' for n in itertools.count(1))
        return next(name for name in names if name not in taken)


def frames_of(session: Session, branch: Branch) -> Iterator[np.ndarray]:
    """The whole video of a branch: what it goes on from, and its frames."""
    if branch.goes_on:
        yield session.given(branch).frames
    yield from session.frames(branch.name)


def _check_frames(num_frames):
    if not 1 <= num_frames <= MOST_FRAMES:
        raise BadInput(f'a video has 1 to {MOST_FRAMES} frames here, not {num_frames}')


def _begun(folder):
    """When a session was made."""
    return (folder / about.HEAD).stat().st_mtime
