"""The state before a chunk of a branch, from what is stored: given pixels, and the chunks before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp

from st2v_jax.sessions.branches import Branch
from st2v_jax.streaming import own_start
from st2v_jax.streaming.stream import StreamState, start, video_keys

if TYPE_CHECKING:
    from st2v_jax.sessions.session import Session


def before(session: Session, branch: Branch, ids: Sequence[str], number: int) -> StreamState:
    """The state before a chunk; ids: of the chunks before it, of which as many are decoded as it remembers."""
    seed = branch.recipe(number).seed
    if number == 0:
        return _opening(session, branch, seed)
    pieces, memory = [], session.model.config.contract.memory
    for earlier in reversed(range(number)):
        pieces.insert(0, session.decoded(branch, earlier, ids[earlier]))
        if sum(piece.shape[1] for piece in pieces) >= memory:
            break
    else:
        if branch.goes_on:  # the chunks are shorter than the memory, which reaches back to given frames
            pieces.insert(0, _opening(session, branch, seed).frames)
    frames, anchor = jnp.concatenate(pieces, 1)[:, -memory:], session.chunk(ids[number - 1]).anchor
    given = jnp.int32(branch.given.frames) if branch.goes_on else None
    anchor = None if anchor is None else jnp.asarray(anchor)
    return StreamState(frames, anchor, video_keys([seed]), jnp.int32(number), given=given)


def _opening(session, branch, seed):
    given = session.given(branch)
    return start(video_keys([seed])) if given is None else own_start.opening(session.model, given, seed=seed)
