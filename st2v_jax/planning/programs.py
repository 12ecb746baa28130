"""The programs that make a video, with the shapes of what they receive; nothing is loaded or computed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from st2v_jax.diffusion import sampling
from st2v_jax.models.system import encode_prompt
from st2v_jax.refinement import blend, sdedit
from st2v_jax.refinement.enhancer import Enhancer, decode_latents, encode_frames, encode_texts
from st2v_jax.streaming import stream
from st2v_jax.streaming.generate import Model
from st2v_jax.streaming.settings import SampleSettings


@dataclass(frozen=True)
class Program:
    """A program, what it receives and how often it runs.

    Attributes:
      name: the stage and, after a comma, its part, such as 'first chunk, step'.
      function: a pure function of the arguments.
      arguments: of which arrays may be shapes.
      repeats: how often it runs.
      ahead: whether the host starts the next run while the device still works on this one.
      beside: parameters that are on the device while it runs, and that it does not receive.
    """

    name: str
    function: Callable
    arguments: tuple
    repeats: int
    ahead: bool = False
    beside: Any = ()

    @property
    def part(self) -> str:
        """The last words of the name: 'prompt', 'condition', 'step', 'decoding', 'memory' or 'encoding'."""
        return self.name.rpartition(', ')[2]


def streaming(model: Model, settings: SampleSettings, num_frames: int) -> list[Program]:
    """The programs of the streaming stage for num_frames frames; each receives all parameters of the model."""
    system, params = model.system, model.params
    ids = jax.ShapeDtypeStruct((1, model.config.text.max_tokens), jnp.int32)
    encode = lambda params, ids: encode_prompt(system, params, ids, ids)
    found = [Program('prompt', encode, (params, ids), 1)]
    prompt = jax.eval_shape(encode, params, ids)
    state = jax.eval_shape(lambda: stream.start(jax.random.key(0)[None]))
    chunks = model.config.contract.chunks(num_frames)
    run = stream.programs(system, settings)
    counts = {'first chunk': 1} | ({'later chunk': chunks - 1} if chunks > 1 else {})
    for name, count in counts.items():
        x, condition = jax.eval_shape(run.begin, params, prompt, state)
        levels = stream.levels_of(system, settings, state)
        steps = len(levels.t) - 1
        inputs = jax.tree.map(lambda leaf: leaf[0], sampling.steps(levels))
        latents = jax.eval_shape(partial(stream.new_latents, system), x, state)
        frames = jax.eval_shape(run.decode, params, latents)
        trajectory = jax.eval_shape(lambda x, levels=levels: sampling.begin(x, levels), x)
        found += [
            Program(f'{name}, condition', run.begin, (params, prompt, state), count),
            Program(
                f'{name}, step', run.step, (params, condition, state, trajectory, inputs), count * steps, ahead=True
            ),
            Program(f'{name}, decoding', run.decode, (params, latents), count),
            Program(f'{name}, memory', run.remember, (params, frames, state), count),
        ]
        state = jax.eval_shape(run.remember, params, frames, state)
    return found


def refinement(
    enhancer: Enhancer,
    settings: sdedit.RefineSettings,
    size: tuple[int, int],
    num_frames: int,
    *,
    profile: str,
    decode_frames: int,
) -> list[Program]:
    """The programs of `enhance` for num_frames frames of `size` (height, width) pixels."""
    canvas, piece = enhancer.canvas(size), min(num_frames, decode_frames)
    encoding, decoding = partial(encode_frames, canvas=canvas, profile=profile), partial(decode_latents, canvas=canvas)
    ids = jax.ShapeDtypeStruct((2, enhancer.config.text.max_tokens), jnp.int32)
    frames = jax.ShapeDtypeStruct((piece, *size, 3), jnp.float32)
    latents = jax.eval_shape(encoding, enhancer, frames)
    keys = jax.eval_shape(lambda: blend.split_keys(jax.random.key(0)[None]))
    job = enhancer.job(settings, jax.eval_shape(encode_texts, enhancer, ids), keys)
    step, arguments, runs = sdedit.step_program(job, (1, num_frames, *latents.shape[1:]))
    pieces = math.ceil(num_frames / piece)
    beside = {part: enhancer.params[part] for part in ('vae', 'text')}
    return [
        Program('refining, prompt', encode_texts, (enhancer, ids), 1),
        Program('refining, encoding', encoding, (enhancer, frames), pieces),
        Program('refining, step', step, arguments, runs * settings.steps, beside=beside),
        Program('refining, decoding', decoding, (enhancer, latents), pieces),
    ]
