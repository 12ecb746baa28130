"""Making the chunks of a branch. Each is stored before it is handed out; of several draws, one is kept.

Which draw a gate keeps follows from the frames of the draws alone. Each is stored as a chunk of its own id, so a run
that was killed finds those that are made, and decides as if it had not been.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from st2v_jax.sessions import about, chunks, fingerprint, journal, states
from st2v_jax.sessions.branches import Branch
from st2v_jax.sessions.inputs import drawn, inputs_of
from st2v_jax.streaming import stream as streaming
from st2v_jax.streaming.gate import OFF, Trial
from st2v_jax.streaming.stream import StreamState

if TYPE_CHECKING:
    from st2v_jax.sessions.session import Session


class Step(NamedTuple):
    """What `Session.extend` has just done.

    Attributes:
      chunk: the number of the chunk, from 0.
      step, steps: denoising steps done, of how many; they begin anew with another draw of the chunk.
      frames: [n, H, W, 3] the new frames of the chunk once it is stored; None before.
      predicted: [1, f, h, w, c] what its clean latents look like after this step; None once it is stored.
    """

    chunk: int
    step: int
    steps: int
    frames: np.ndarray | None = None
    predicted: jax.Array | None = None


def extend(session: Session, branch: Branch) -> Iterator[Step]:
    """Makes the chunks of a branch that are missing, damaged or not decided; see `Session.extend`."""
    planned, there = _planned(session, branch)
    programs, state = fingerprint.of_programs(session.decode_frames), None
    if not all(there):
        with about.named(session.folder):
            journal.add(session.folder / 'journal.jsonl', run=programs, branch=branch.name)
        _compare(session, planned, there, programs)
    number = 0
    while number < len(planned):
        if there[number]:
            state, number = None, number + 1
            continue
        if state is None:
            state = states.before(session, branch, _ids(planned[:number]), number)
        kept = yield from _chunk(session, branch, number, planned[number], state, programs)
        if not branch.decided(number):
            branch = branch.keeping(number, kept.draw)
            if kept.draw:  # its id is another one, and so are those of later chunks
                planned, there = _planned(session, branch)
        state, number = kept.after, number + 1
        if number > len(branch.chunks):
            with about.named(session.folder):
                branch = session.save(dataclasses.replace(branch, chunks=tuple(_ids(planned[:number]))))
        yield Step(number - 1, kept.steps, kept.steps, np.asarray(kept.frames[0]))
    if len(branch.chunks) < len(planned):  # chunks that were there, but not in the branch's list yet
        session.save(dataclasses.replace(branch, chunks=tuple(_ids(planned))))


def again(session: Session, branch: Branch, number: int) -> streaming.Chunk:
    """A chunk made once more from the chunks before it; nothing is written."""
    state = states.before(session, branch, branch.chunks, number)
    *_, (_, _, last) = _denoised(session, branch, number, state, branch.draw(number))
    return _finished(session, branch, number, last.x, state)


class _Kept(NamedTuple):
    """The draw of a chunk that is kept.

    Attributes:
      draw: its number.
      frames: [1, n, H, W, 3].
      after: the state after it; None for a draw that was stored.
      steps: denoising steps of the last draw; 1 if none was made now.
    """

    draw: int
    frames: np.ndarray | jax.Array
    after: StreamState | None
    steps: int


def _chunk(session, branch, number, inputs, state, programs):
    """Draws a chunk until its gate lets one pass; yields a Step after each denoising step but the last of a draw."""
    recipe, decided, file = branch.recipe(number), branch.decided(number), session.folder / 'journal.jsonl'
    gate = recipe.gate if number >= len(branch.draws) else OFF
    trial, steps = Trial(gate, state.frames), 1
    while trial.goes_on:
        draw = trial.draw or branch.draw(number)
        its = drawn(inputs, recipe.seed, trial.draw)
        id = fingerprint.digest(its)
        if not decided and session.whole(id, number):
            frames, after = session.decoded(branch, number, id), None
            if trial.is_best(frames):
                kept = _Kept(draw, frames, after, steps)
            continue
        began = time.monotonic()
        for step, steps, now in _denoised(session, branch, number, state, draw):
            jax.block_until_ready(now.x)
            if step < steps:
                yield Step(number, step, steps, predicted=now.x0)
        with trial.not_finite():
            made = _finished(session, branch, number, now.x, state)
            with about.named(session.folder):
                _store(session, branch, number, its, made, draw, programs)
                seconds = round(time.monotonic() - began, 3)
                journal.add(file, chunk=id, number=number, branch=branch.name, seconds=seconds)
            if trial.is_best(made.frames):
                kept = _Kept(draw, made.frames, made.state, steps)
    if line := trial.line(number):
        session.tell(line)
        with about.named(session.folder):
            journal.add(file, number=number, branch=branch.name, draws=trial.scored, kept=kept.draw)
    return kept


def _planned(session, branch):
    """(what determines each chunk, whether it is decided and there); see `Session.planned`."""
    planned = inputs_of(branch, session.model, session.about)
    return planned, [branch.decided(n) and session.whole(id, n) for n, id in enumerate(_ids(planned))]


def _ids(planned):
    return [fingerprint.digest(inputs) for inputs in planned]


def _denoised(session, branch, number, state, draw):
    model, settings = session.model, session.settings(branch, number)
    keys = streaming.video_keys([branch.recipe(number).seed])  # those of the state may be of the recipe before
    state = state._replace(key=streaming.redrawn(keys, draw))
    return streaming.denoised(model.system, settings, model.params, session.prompt(branch, number), state)


def _finished(session, branch, number, x, state):
    return streaming.finished(session.model.system, session.settings(branch, number), session.model.params, x, state)


def _compare(session, planned, there, programs):
    """Tells if the next chunk is made by other programs than the one before it."""
    first = there.index(False)
    if not first:
        return
    then = session.chunk(fingerprint.digest(planned[first - 1])).notes['programs']
    if differ := fingerprint.differences(then, programs):
        session.tell(f'from chunk {first} on frames are those of an undisturbed run up to rounding only: {differ}')


def _store(session, branch, number, inputs, made, draw, programs):
    recipe = branch.recipe(number)
    text = recipe.prompts.of_chunk(branch.counted(session.model.config.contract), number)
    notes = {
        'frames': chunks.frames_hash(np.asarray(made.frames[0])),
        'programs': programs,
        **text._asdict(),
        'negative_prompt': recipe.negative_prompt,
        'seed': recipe.seed,
    }
    notes |= {'draw': draw} if draw else {}
    anchor = None if made.state.anchor is None else np.asarray(made.state.anchor)
    chunks.write(session.folder / 'chunks', inputs, np.asarray(made.latents), anchor, notes)
