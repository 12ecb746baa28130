"""Videos in sessions, for the verbs that make them: opening a session, its progress, the file of a branch."""

from __future__ import annotations

import itertools
import shlex
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from st2v_jax.cli import options, schedules, starts
from st2v_jax.cli.progress import Progress, warn
from st2v_jax.cli.run import Run
from st2v_jax.cli.videos import save
from st2v_jax.errors import BadInput, SessionError

if TYPE_CHECKING:  # these import jax, for which --help does not wait
    from st2v_jax.sessions.branches import Branch, Recipe
    from st2v_jax.sessions.session import Session, Step
    from st2v_jax.streaming.generate import Model
    from st2v_jax.video_io.start import Start


def open_session(folder: str | Path, weights: str | None, decode_frames: int) -> Session:
    """The session in a folder with its model; weights: those to use instead of the ones it was made with, or None."""
    from st2v_jax.sessions.session import Session
    from st2v_jax.streaming.generate import load

    about = Session(folder).about
    model = load(weights or about['source'], about['dtype'], about['frame_size'])
    return Session(folder, model, tell=warn, decode_frames=decode_frames)


def begin(
    folder: str, model: Model, asked: Recipe, num_frames: int, decode_frames: int, start: Start | None
) -> tuple[Session, Branch]:
    """The session in a folder, and its main branch; both are made if they are not there.

    Raises BadInput, with the command that makes a branch, if the main one was asked for something else.
    """
    from st2v_jax.sessions.about import exists
    from st2v_jax.sessions.session import Session, Taken

    open_or_create = Session if exists(folder) else Session.create
    session = open_or_create(folder, model, tell=warn, decode_frames=decode_frames)
    try:
        return session, session.start(asked, num_frames=num_frames, start=start)
    except Taken as error:
        line = _branching(folder, session.branch().recipes[0], asked)
        raise BadInput(f'{error}; a branch has room for this: {line}') from error


def _branching(folder, there, wanted):
    """The command that makes a branch of a recipe in a session that was made with another one."""
    differ = {name: getattr(wanted, name) for name in ('negative_prompt', 'seed')}
    differ = {name: value for name, value in differ.items() if value != getattr(there, name)}
    for name in options.SAMPLING:
        if getattr(wanted.settings, name) != getattr(there.settings, name):
            differ[name] = getattr(wanted.settings, name)
    if wanted.gate.redraws != there.gate.redraws:
        differ |= {'gate': wanted.gate.action, 'gate_tries': wanted.gate.redraws or None}
    parser = options.Parser(f'st2v session branch {shlex.quote(folder)} --from 0', '')
    return parser.again(Namespace(), **schedules.spelled(wanted.prompts), **differ)


def make(session: Session, branch: Branch, progress: Progress, run: Run) -> None:
    """Makes the chunks of a branch that are missing."""
    for _ in _watched(session, branch, progress, run):
        pass


def _watched(session, branch, progress, run, given=0) -> Iterator[Step]:
    """The steps of a branch, with a progress bar; `run` knows what is stored.

    The bar counts frames: those that are given, and each step of a chunk as an equal share of those that it adds.
    """
    contract, count = branch.counted(session.model.config.contract), len(session.planned(branch))
    total, there = given + contract.frames_after(count), session.there(branch)
    if not all(there):
        progress.stage(f'chunk {there.index(False) + 1}/{count} compiling', total)
    kept = sum(there)
    for step in session.extend(branch.name):
        new, before = (contract.stride, contract.frames_after(step.chunk)) if step.chunk else (contract.opening, 0)
        kept += step.frames is not None
        run.written = f'{kept} of {count} chunks are in {session.folder}'
        done = given + before + step.step / step.steps * new
        progress.to(done, f'chunk {step.chunk + 1}/{count} step {step.step}/{step.steps}')
        yield step


def make_video(
    session: Session, branch: Branch, output: str, fps: float, progress: Progress, run: Run, *, only_new: bool
) -> None:
    """Makes what is missing of a branch, and its file; nothing is done again that is complete.

    only_new: whether the frames that it goes on from are left out of the file.

    Without a chunk that is there already, the file grows while chunks are made; else it is written afterwards, as it is
    if a gate may draw chunks again.
    """
    from st2v_jax.streaming.generate import first_frames

    there = session.there(branch)
    if all(there) and session.exported(branch, output, fps, only_new):
        return None if progress.quiet else print(f'{output} is complete: {session.folder}, {branch.name}', flush=True)
    if any(there) or not all(map(branch.decided, range(len(there)))):  # the file begins with what is kept of each chunk
        make(session, branch, progress, run)
        return export(session, branch.name, output, fps, progress, run, only_new=only_new)
    given = starts.leading(None if only_new else session.given(branch))
    made = (
        step.frames
        for step in _watched(session, branch, progress, run, sum(map(len, given)))
        if step.frames is not None
    )
    new = first_frames(made, branch.num_frames)
    return _write(session, branch, itertools.chain(given, new), output, fps, progress, run, only_new)


def export(
    session: Session, name: str, output: str, fps: float, progress: Progress, run: Run, *, only_new: bool
) -> None:
    """Writes the file of a branch from the chunks that are made; only_new: as for `make_video`."""
    branch = session.branch(name)
    if not branch.chunks:
        raise SessionError(f'{session.folder}: {name} has no chunks yet')
    frames = min(branch.num_frames, branch.counted(session.model.config.contract).frames_after(len(branch.chunks)))
    given = starts.leading(None if only_new else session.given(branch))
    progress.stage('writing', sum(map(len, given)) + frames)
    _write(session, branch, itertools.chain(given, session.frames(name)), output, fps, progress, run, only_new)


def _write(session, branch, frames, output, fps, progress, run, only_new):
    from st2v_jax.sessions.manifest import metadata

    stored = run.written
    try:
        save(frames, output, fps, metadata(session, branch), progress, run)
    except BaseException:
        chunks = len(session.branch(branch.name).chunks)
        run.written = f'{chunks} chunks are in {session.folder}' if chunks else stored
        raise
    session.note_export(session.branch(branch.name), output, fps, only_new)
