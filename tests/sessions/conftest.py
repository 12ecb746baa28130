"""Sessions of the tiny model whose chunks are made by arithmetic instead of its networks: nothing is compiled."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax import stopping
from st2v_jax.cli.run import main
from st2v_jax.diffusion.sampling import Trajectory
from st2v_jax.sessions import inputs, states
from st2v_jax.sessions import session as sessions
from st2v_jax.streaming import generate, own_start, stream
from st2v_jax.streaming.generate import load

STEPS = 2


@pytest.fixture
def quick(monkeypatch):
    """Replaces the programs of a chunk. What they make depends on all that a chunk depends on; .made lists numbers."""
    made = []

    def decode(params, latents):
        frames = np.clip(np.asarray(latents)[..., :3], -1, 1)
        return frames.repeat(8, -2).repeat(8, -3)

    def denoised(system, settings, params, told, state):
        count, *shape = system.config.contract.latent_shape(state.is_first)
        seed = np.asarray(jax.random.key_data(state.key)).ravel().tolist()
        memory = state.picture if state.is_first else state.frames
        seen = 0 if memory is None else int(1e6 * np.abs(np.asarray(memory)).sum())
        random = np.random.default_rng([*seed, int(state.index), seen, settings.steps, *np.ravel(told).tolist()])
        x = random.uniform(-1, 1, (1, count, *shape)).astype(np.float32)
        for step in range(1, STEPS + 1):
            stopping.check()
            yield step, STEPS, Trajectory(x, x, None)

    def finished(system, settings, params, x, state):
        made.append(int(state.index))
        latents = stream.new_latents(system, x, state)
        frames = decode(params, latents)
        seen = frames if state.is_first else np.concatenate([state.frames, frames], 1)
        anchor = np.asarray(latents)[:, 0, 0, 0] if state.is_first else state.anchor
        memory = seen[:, -system.config.contract.memory :]
        after = stream.StreamState(memory, anchor, state.key, state.index + 1, given=state.given)
        return stream.Chunk(latents, frames, after)

    monkeypatch.setattr(stream, 'denoised', denoised)
    monkeypatch.setattr(stream, 'finished', finished)
    monkeypatch.setattr(stream, 'programs', lambda system, settings: SimpleNamespace(decode=decode))
    monkeypatch.setattr(inputs, 'encode', lambda model, told, null: [told.ids, told.following, null])
    plain = SimpleNamespace(concatenate=np.concatenate, asarray=np.asarray, int32=jnp.int32)
    for module in (sessions, states):
        monkeypatch.setattr(module, 'jnp', plain)
    monkeypatch.setattr(own_start, '_embedded', lambda system, params, frames: np.asarray(frames)[:, ::8, 0, 0])
    monkeypatch.setattr(own_start, '_latents', lambda system, params, images: np.asarray(images)[:, ::8, ::8])
    return SimpleNamespace(made=made)


@pytest.fixture(scope='session')
def model(tiny_folder):
    return load(tiny_folder, jnp.float32)


@functools.cache
def _loaded(source, dtype, frame_size):
    return load(source, dtype, frame_size)


def _once(folder, dtype, frame_size=None):
    """`generate.load`, which reads each model once for all tests."""
    return _loaded(str(generate.open_model(folder).source), dtype, frame_size and tuple(frame_size))


@pytest.fixture
def st2v(quick, tiny_folder, capsys, monkeypatch, tmp_path):
    """st2v('session', ...) -> (exit code, stdout, stderr) of a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['st2v'])
    monkeypatch.setattr(generate, 'load', _once)

    def run(*words, weights=tiny_folder):
        capsys.readouterr()
        words = [*words, '--weights', str(weights)] if words[0] == 'sample' else words
        try:
            code = main([*map(str, words)])
        except SystemExit as leave:
            code = leave.code
        return code, *capsys.readouterr()

    return run
