"""A studio of the tiny model whose chunks are made by arithmetic, as in tests/sessions: nothing is compiled."""

import dataclasses
import threading
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.sessions import branches
from st2v_jax.sessions.session import Session, Step
from st2v_jax.streaming.generate import load
from st2v_jax.web import studio as studios
from st2v_jax.web.seen import Seen
from st2v_jax.web.studio import Studio

STEPS = 3


@pytest.fixture(scope='session')
def model(tiny_folder):
    return load(tiny_folder, jnp.float32)


@pytest.fixture
def paced(monkeypatch):
    """Chunks whose steps wait for `.let`, a semaphore.

    .free() lets all pass, .free(n) those of n chunks; .made lists (branch, chunk).
    """
    pace = SimpleNamespace(let=threading.Semaphore(0), made=[], entered=threading.Semaphore(0))
    pace.free = lambda chunks=10**6: pace.let.release(chunks * (STEPS - 1))

    def extend(session, name='main'):
        branch = session.branch(name)
        ids = session.planned(branch)
        for number in range(len(branch.chunks), len(ids)):
            for step in range(1, STEPS):
                pace.entered.release()
                pace.let.acquire()
                yield Step(number, step, STEPS)
            frames = np.random.default_rng(number).uniform(-1, 1, (8 if number else 16, 32, 32, 3)).astype(np.float32)
            there = session.branch(name)
            branches.save(session.folder / 'branches', dataclasses.replace(there, chunks=tuple(ids[: number + 1])))
            pace.made.append((name, number))
            yield Step(number, STEPS, STEPS, frames)

    monkeypatch.setattr(Session, 'extend', extend)
    monkeypatch.setattr(Seen, 'keep', lambda *_: None)
    monkeypatch.setattr(studios, 'preview', lambda session, branch, step: b'preview')
    return pace


@pytest.fixture
def studio(paced, model, tmp_path):
    made = Studio(tmp_path / 'videos', model, 4)
    yield made
    paced.free()
    made.close()
