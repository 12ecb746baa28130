"""Where the ground slows down: one later chunk after true frames, next to the truth, for one checkpoint after another.

    python benchmarks/one_chunk.py --weights runs/apm/weights runs/no_apm/weights --scenes 32 --json one-chunk.json

Scenes are unseen ones whose object moves straight on, so that only the ground shows the motion. The memory holds the
rendered frames before the chunk, and the anchor is the rendered first frame, so nothing that a model made is fed back:
what is lost here is lost in a single chunk. Looked at is the frame around its middle, where the object is.

A row of the table has means over the scenes, each number as a share of the truth's: `flow` of the ground over all
steps of the chunk, `border` over the step from the last true frame into the chunk, `inside` over the others, and
`detail`, the fine detail of the ground. 1 is right. Then comes `flow` of the slow, middling and fast scenes.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import probes  # noqa: F401, makes st2v_jax importable

from st2v_jax.data.world import Scene
from st2v_jax.data.world.attributes import TRACKING
from st2v_jax.evaluation import pages, record, survey
from st2v_jax.evaluation.intervals import estimate
from st2v_jax.metrics.flow import flows
from st2v_jax.metrics.motion import high_pass
from st2v_jax.streaming.generate import Model, load, stream
from st2v_jax.streaming.own_start import after_frames
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.streaming.stream import StreamState
from st2v_jax.video_io import to_uint8

SPEEDS = (2.0, 2.5, 3.0, 3.51)  # ends of the bins of the ground's speed, in pixels of a 128 pixel frame per frame
NUMBERS = ('flow', 'border', 'inside', 'detail')


def straight_scenes(seed: int, count: int) -> Scene:
    """Unseen scenes with one object that moves straight on, with a leading axis [count]."""
    return survey.unseen_scenes(seed, count, lambda scenes: scenes.motion[:, 0] < TRACKING)[1]


def chunk_after(
    model: Model, settings: SampleSettings, prompts: Sequence[str], truth: np.ndarray, seed: int
) -> np.ndarray:
    """The new frames uint8 [n, s, h, w, 3] of the chunk after the true first frames uint8 [n, f, h, w, 3].

    seed: of the noise of the first video; the others have the seeds after it.
    """
    state = after_chunk(model, truth, truth[:, settings.anchor_frame], seed)
    return to_uint8(next(stream(model, prompts, state=state, settings=settings))[0])


def after_chunk(model: Model, frames: np.ndarray, anchor: np.ndarray, seed: int) -> StreamState:
    """The state of n videos before chunk 1, with these frames [n, f, h, w, 3] as their chunk 0; anchor [n, h, w, 3].

    seed: of the first video; the others have the seeds after it.
    """
    state = after_frames(model, frames, anchor=anchor, seed=range(seed, seed + len(frames)))
    return state._replace(index=jnp.int32(1), given=None)


def around_the_middle(size: int) -> np.ndarray:
    """The pixels bool [size, size] of a frame around its middle, where the object is."""
    around = np.ones((size, size), bool)
    around[size // 4 : -(size // 4), size // 4 : -(size // 4)] = False
    return around


def ground(frames: np.ndarray) -> tuple[np.ndarray, float]:
    """(Flow [f - 1] of the ground in pixels a frame, its detail) in frames uint8 [f, h, w, 3].

    Both are those outside the middle; the flow is the median length, which a few landmarks do not change. The detail is
    that of all frames but the first, which is the one before the chunk.
    """
    outside = around_the_middle(frames.shape[1])
    lengths = np.linalg.norm(flows(frames), axis=-1)
    return np.median(lengths[:, outside], -1), float(np.abs(high_pass(frames[1:]))[:, outside].mean())


def compared(made: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """NUMBERS of one chunk and the frame before it, uint8 [1 + s, h, w, 3], as shares of the truth's."""
    (flow, detail), (true_flow, true_detail) = ground(made), ground(truth)
    share = lambda mine, true: float(np.mean(mine) / max(np.mean(true), 1e-3))
    return {
        'flow': share(flow, true_flow),
        'border': share(flow[:1], true_flow[:1]),
        'inside': share(flow[1:], true_flow[1:]),
        'detail': share(detail, true_detail),
    }


def means(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The Estimate of each of NUMBERS over all scenes, and of each bin of SPEEDS that has some."""
    over = lambda some: {name: estimate([scene[name] for scene in some])._asdict() for name in NUMBERS}
    bins = []
    for low, high in zip(SPEEDS[:-1], SPEEDS[1:]):
        some = [scene for scene in found if low <= scene['speed'] < high]
        bins.append({'from': low, 'to': high} | (over(some) if some else {}))
    return over(found) | {'by speed': bins}


def table(checkpoints: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of the table, a row for each checkpoint."""
    number = lambda found: f'{found["mean"]:.3f}' if found else '-'
    heads = [f'flow at {low:g} to {high:.1f} px' for low, high in zip(SPEEDS[:-1], SPEEDS[1:])]
    rows = []
    for checkpoint in checkpoints:
        mean = checkpoint['mean']
        flow = f'{number(mean["flow"])} ({mean["flow"]["low"]:.3f} to {mean["flow"]["high"]:.3f})'
        rows.append(
            [checkpoint['weights'], flow, *(number(mean[name]) for name in NUMBERS[1:])]
            + [number(some.get('flow')) for some in mean['by speed']]
        )
    return pages.table(['weights', 'flow', *NUMBERS[1:], *heads], rows)


def main(argv=None) -> int:
    """Makes the chunks, and writes and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', nargs='*', default=[None], help='models (default: the small model)')
    parser.add_argument('--scenes', type=int, default=32, help='all in one batch (default: 32)')
    parser.add_argument('--steps', type=int, default=10, help='denoising steps (default: 10)')
    parser.add_argument('--seed', type=int, default=4_000_003, help='of the scenes')
    parser.add_argument('--noise', type=int, default=7, help='seed of the noise of the first scene')
    parser.add_argument('--dtype', choices=('bfloat16', 'float32'), help='default: what suits the device')
    parser.add_argument('--json', type=Path, help='file to write')
    arguments = parser.parse_args(argv)

    scenes = straight_scenes(arguments.seed, arguments.scenes)
    prompts = survey.captions(scenes)
    speeds = np.abs(np.asarray(scenes.velocity)).max(-1) / 256
    dtype, checkpoints, truths = record.network_dtype(arguments.dtype), [], {}
    for weights in arguments.weights:
        began = time.monotonic()
        model = load(weights, dtype)
        contract = model.config.contract
        size, before = contract.frame_size[0], contract.first_frames
        frames = before + contract.stride
        if (size, frames) not in truths:
            truths[size, frames] = survey.rendering(scenes, range(frames), size)
        truth = truths[size, frames]
        settings = model.settings(steps=arguments.steps)
        made = chunk_after(model, settings, prompts, truth[:, :before], arguments.noise)
        rows = []
        for video, true, prompt, speed in zip(made, truth, prompts, speeds):
            row = compared(np.concatenate([true[before - 1 : before], video]), true[before - 1 :])
            rows.append({'prompt': prompt, 'speed': float(speed), **row})
        checkpoints.append({
            'weights': 'the small model' if weights is None else weights,
            'memory': model.config.cam.fusion,
            'anchor': 'image' in model.params,
            'settings': vars(settings),
            'seconds': time.monotonic() - began,
            'mean': means(rows),
            'scenes': rows,
        })  # fmt: skip
        print(*table(checkpoints[-1:])[0 if len(checkpoints) == 1 else 2 : -1], sep='\n', flush=True)
    if arguments.json:
        options = {name: getattr(arguments, name) for name in ('scenes', 'steps', 'seed', 'noise')}
        made = record.made('python benchmarks/one_chunk.py') | options | {'dtype': np.dtype(dtype).name}
        record.write(arguments.json, {'made': made, 'checkpoints': checkpoints})
    return 0


if __name__ == '__main__':
    sys.exit(main())
