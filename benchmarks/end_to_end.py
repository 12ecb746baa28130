"""Measures what a user waits for: the first frame after the command, frames a second of streaming and of refinement.

    python benchmarks/end_to_end.py [--size full] [--json docs/performance/end-to-end.json]

A model with random weights is written to --folder and loaded from there. Streaming is timed as in the release, by the
later chunks of a video once everything is compiled, with 50 DDIM steps and with 25 of DPM-Solver++; refinement by one
video of 16:9. The first frame is that of a new process, which finds all of its programs in the cache: when it has
imported, loaded the weights, taken its first step and decoded, and how long jax traced, lowered and read programs.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import probes  # makes st2v_jax importable

from st2v_jax.data.caption_tokens import tokenizer_for
from st2v_jax.models import build
from st2v_jax.refinement.enhancer import enhance, load_enhancer
from st2v_jax.streaming import generate as text_to_video
from st2v_jax.weights import folder as weights
from st2v_jax.weights import layout

PROMPT = 'a red ball bounces over a meadow'
SOLVERS = (('ddim', 50), ('dpmpp_2m', 25))
PHASES = {  # what jax reports: our names
    '/jax/core/compile/jaxpr_trace_duration': 'tracing_s',
    '/jax/core/compile/jaxpr_to_mlir_module_duration': 'lowering_s',
    '/jax/core/compile/backend_compile_duration': 'compiling_or_reading_s',
    '/jax/compilation_cache/cache_retrieval_time_sec': 'reading_s',
}


def model_config(size: str) -> build.ModelConfig:
    """The whole ModelConfig of 'full' or 'tiny'."""
    if size == 'full':
        return build.ModelConfig()
    from configs import common

    return build.ModelConfig.from_dict(common.model('tiny').to_dict())


def write(folder: Path, config: build.ModelConfig) -> None:
    """Writes all networks of a config with random numbers."""
    shapes = layout.abstract(config, layout.networks(config))
    for name, abstract in shapes.items():  # one after the other, for the memory
        params = {name: jax.tree.map(np.asarray, probes.random_parameters(abstract, np.float32))}
        weights.save(folder, config, params, tokenizer=tokenizer_for(config.text.vocab_size))


def streaming(model: text_to_video.Model, chunks: int, steps: Callable[[int], int]) -> dict[str, Any]:
    """Frames a second of later chunks, for each of SOLVERS with steps(n) instead of n steps."""
    settings = model.settings(profile='release', steps=steps(50))
    _, state = next(text_to_video.stream(model, PROMPT, settings=settings))
    found = {}
    for solver, count in SOLVERS:
        eta = {'eta': 0.0} if solver != 'ddim' else {}
        settings = model.settings(profile='release', solver=solver, steps=steps(count), **eta)
        ends = [time.perf_counter()]
        for frames, _ in itertools.islice(text_to_video.stream(model, PROMPT, settings=settings, state=state), chunks):
            ends.append(time.perf_counter())
            new = len(frames)
        seconds = np.diff(ends).tolist()
        rate = new / statistics.median(seconds[1:])  # the first one compiled
        found[f'{solver}, {steps(count)} steps'] = {'frames_per_s': rate, 'new_frames': new, 'chunk_s': seconds}
        say(f'streaming, {solver}, {steps(count)} steps: {rate:.4g} frames/s')
    return found


def refinement(folder: Path, frames: int, size: tuple[int, int]) -> dict[str, Any]:
    """Frames a second of a refinement of random frames, without what compiles."""
    enhancer = load_enhancer(folder)
    video = np.random.default_rng(0).integers(0, 256, (frames, *size, 3), np.uint8)

    class Compiled(Exception):
        pass

    def stop(done, steps):
        raise Compiled

    with contextlib.suppress(Compiled):
        list(enhance(enhancer, video, PROMPT, on_step=stop))
    marks = [time.perf_counter()]
    pieces = []
    for piece in enhance(enhancer, video, PROMPT, on_step=lambda *_: marks.append(time.perf_counter())):
        pieces.append(time.perf_counter())
        shape = piece.shape[1:3]
    decoding = statistics.median(np.diff(pieces)) * len(pieces)  # the first piece compiled
    seconds = marks[-1] - marks[0] + decoding
    found = {'frames': frames, 'size': shape, 'seconds': seconds, 'frames_per_s': frames / seconds}
    found |= {'step_s': statistics.median(np.diff(marks)), 'steps': len(marks) - 1, 'decoding_s': decoding}
    say(f'refinement to {shape[1]}x{shape[0]}: {frames / seconds:.4g} frames/s, {found["step_s"]:.4g} s a step')
    return found


def first_frame(folder: Path, steps: int) -> dict[str, float]:
    """Seconds until a new process has done each thing up to its first frame."""
    command = [sys.executable, __file__, '--first', str(folder), '--steps', str(steps), '--began', str(time.time())]
    environment = os.environ | {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make_first(folder: str, steps: int, began: float) -> dict[str, float]:
    """What `first_frame` returns, in the new process."""
    marks, phases = {'imported': time.time() - began}, collections.Counter()
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: phases.update({PHASES[event]: seconds} if event in PHASES else {})
    )
    jax.devices()
    marks['device'] = time.time() - began
    model = text_to_video.load(folder)
    jax.block_until_ready(model.params)
    marks['loaded'] = time.time() - began

    def on_step(chunk, step, steps):
        marks.setdefault('first step', time.time() - began)
        marks['last step'] = time.time() - began

    settings = model.settings(profile='release', steps=steps)
    next(text_to_video.stream(model, PROMPT, settings=settings, on_step=on_step))
    return marks | {'first frame': time.time() - began} | phases


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and stores the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=('full', 'tiny'), default='full', help='model size (default: %(default)s)')
    parser.add_argument('--folder', help='folder for the weights, which take 8 GB (default: a temporary folder)')
    parser.add_argument('--chunks', type=int, default=4, help='later chunks of each solver (default: %(default)s)')
    parser.add_argument('--frames', type=int, default=40, help='frames that are refined (default: %(default)s)')
    parser.add_argument('--json', help='file for the numbers')
    for name in ('--first', '--steps', '--began'):  # of the process that makes a first frame
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.first:
        say(json.dumps(make_first(args.first, int(args.steps), float(args.began))))
        return 0
    full = args.size == 'full'
    config, steps = model_config(args.size), (lambda count: count) if full else (lambda count: count // 12)
    device = jax.devices()[0]
    result = {'device': device.device_kind, 'jax': jax.__version__, 'size': args.size}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write(Path(folder), config)
        say('written')
        model = text_to_video.load(folder)
        result['streaming'] = streaming(model, args.chunks, steps)
        result['streaming_peak_gib'] = probes.peak_gib(device)
        probes.store(args.json, result)
        del model
        result['first_frame_cold'] = first_frame(Path(folder), steps(50))
        result['first_frame'] = first_frame(Path(folder), steps(50))
        say(
            f'first frame: {result["first_frame"]}; before that, with programs to compile: {result["first_frame_cold"]}'
        )
        probes.store(args.json, result)
        result['refinement'] = refinement(Path(folder), args.frames, (144, 256) if full else config.frame_size)
        result['peak_gib'] = probes.peak_gib(device)
    probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
