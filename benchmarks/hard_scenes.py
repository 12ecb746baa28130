r"""Scenes made hard for memory: what a video needs again has been out of sight for longer than a chunk remembers.

    python benchmarks/hard_scenes.py --checker runs/checker.npz --out runs/hard \
        --json docs/evaluation/hard-scenes.json --method CAM+APM=streaming:runs/apm/weights \
        --method CAM=streaming:runs/no_apm/weights --method Add-Cond=streaming:runs/add_cond/weights

Every video goes on from a true clip: its first frame is the anchor, and its last 8 frames are the short-term memory.
In the clip the object is shown for 16 frames and is then out of sight:

- leaves: it glides out of the picture to one side
- shrinks: it goes so far away that it is a dot, whose pattern cannot be seen
- turns: the camera turns away and is on its way back, with the object still outside the picture

The prompt is a brief caption, which names colour, shape and motion, but neither pattern nor ground, and all objects
have a pattern. So pattern and size can come from the anchor alone. In the last 16 of the frames that are made, pixels
of the object's colour tell whether it is back, and the checker compares it with what was shown. The truth of the same
frames is measured too; `others` compares with the clip of another scene. Videos that are made are kept in --out until
all is measured, so a run that was stopped goes on.
"""

import argparse
import functools
import hashlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from one_chunk import after_chunk, around_the_middle  # makes st2v_jax importable

from st2v_jax.cli import evaluate_methods
from st2v_jax.cli.evaluate_methods import Method
from st2v_jax.data import world
from st2v_jax.data.world import Scene
from st2v_jax.data.world.attributes import COLOUR_RGB, TRACKING
from st2v_jax.evaluation import checker, record, sheets, survey
from st2v_jax.evaluation.batches import Batches
from st2v_jax.evaluation.checker import FRAMES
from st2v_jax.evaluation.instruments import resized
from st2v_jax.evaluation.intervals import estimate
from st2v_jax.metrics.colour import histogram_distances, histograms
from st2v_jax.sessions import fingerprint
from st2v_jax.streaming.generate import Model, load, stream
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.video_io import to_floats, to_uint8

GIVEN = 40  # frames of the clip; the object is in sight in the first FRAMES of them, and out of sight in the last 8
AWAY, GONE, BACK = FRAMES, 28, 44  # when it begins to go, is gone, and begins to come back
PAN = 3.0  # pixels a frame of 128 pixels, how fast the camera turns back; training has 2 to 3.5
FAR = 1.3  # how far the object or the camera goes, in shares of the frame; a swing of 0.25 does not bring it into sight
DOT = 0.16  # radius of an object that has gone far away, as a share of its own: 3 pixels
TRUTH, OTHERS = 'truth', 'others'
WAYS = ('streaming', 'no-anchor')  # of st2v evaluate methods
ALIKE, BRIGHT = 0.98, 60  # a pixel has the colour of an object: cosine of both, and the least of its largest channel
ENOUGH = 0.5  # an object is back if so many pixels of its colour are, as a share of those before
NUMBERS = ('back', 'identity', 'colour', 'shape', 'pattern', 'size', 'ground')
SHOWN = (1, 16, 40, 56, 72, 88, 104)  # frames on the sheet
SIDE, QUALITY = 96, 78  # pixels of a frame on the sheet, and its quality as a JPEG file


class Place(NamedTuple):
    """What is different from the plain scene at one frame.

    Attributes:
      shift: [2] x, y of the object, in shares of the frame.
      size: factor of its radius.
      camera: [2] int32, how much further the camera has moved, in 1/256 pixel.
    """

    shift: np.ndarray
    size: float
    camera: np.ndarray


def gone(frame: int) -> float:
    """How far the object is out of sight at a frame, from 0 to 1: smoothly out, and in again."""
    out, back = (np.clip((frame - start) / (GONE - AWAY), 0, 1) for start in (AWAY, BACK))
    return float(out**2 * (3 - 2 * out) - back**2 * (3 - 2 * back))


def leaves(frame: int, side: int) -> Place:
    """The object glides out of the picture to one side (-1 or 1), and comes back."""
    return Place(np.array([FAR * side * gone(frame), 0]), 1.0, np.zeros(2, np.int32))


def shrinks(frame: int, side: int) -> Place:
    """The object goes far away, and comes back."""
    return Place(np.zeros(2), DOT ** gone(frame), np.zeros(2, np.int32))


def turns(frame: int, side: int) -> Place:
    """The camera turns away to one side, and in the last 8 frames of the clip it is on its way back."""
    away = 128 * FAR * gone(min(frame, GONE))
    returning = 128 * FAR - PAN * max(frame - GIVEN + FRAMES // 2, 0)
    far = max(min(away, returning), 0)
    return Place(np.array([-side * far / 128, 0]), 1.0, np.array([round(256 * side * far), 0], np.int32))


KINDS = {'leaves': leaves, 'shrinks': shrinks, 'turns': turns}


def hard_scenes(seed: int, count: int) -> Scene:
    """Unseen scenes with one object that has a pattern and stays in its place, under a camera that is still; [count].

    Tracking shots are left out because all that they show moves, and the zoom because it changes what is in sight.
    """
    fits = lambda scenes: (scenes.motion[:, 0] >= TRACKING) & (scenes.pattern[:, 0] > 0)
    scenes = jax.tree.map(np.asarray, survey.unseen_scenes(seed, count, fits)[1])
    return scenes._replace(camera=0 * scenes.camera, velocity=0 * scenes.velocity)


def brief(scenes: Scene) -> list[str]:
    """A caption for each scene that names neither pattern nor ground."""
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], scenes) for i in range(len(scenes.count))]
    return [world.caption(scene, next(v for v in range(999) if world.is_brief(scene, v))) for scene in each]


@functools.partial(jax.jit, static_argnums=3)
def _rendered(scene, frames, places, size):
    """Frames [f, size, size, 3] of a scene with the leaves of a Place [f, ...]."""

    def one(frame, place):
        # The camera has gone velocity x frame, so that a camera of its own is one whose frame is 1.
        hard = scene._replace(
            home=scene.home + place.shift.astype(jnp.float32),
            phase=scene.phase + frame - 1,
            radius=scene.radius * place.size,
            # The marks of a pattern do not shrink with the object; far away they cannot be told apart.
            pattern=jnp.where(place.size < 0.5, 0, scene.pattern),
            velocity=place.camera,
        )
        return world.render(hard, jnp.ones(1, jnp.int32), size)[0]

    return jax.vmap(one)(frames, places)


def rendered(scenes: Scene, kind: str, frames: range, size: int) -> np.ndarray:
    """The truth of hard scenes, uint8 [n, f, size, size, 3]; every second scene has the other side."""
    videos = []
    for number in range(len(scenes.count)):
        places = [KINDS[kind](frame, 1 - 2 * (number % 2)) for frame in frames]
        places = Place(*(np.stack(leaves) for leaves in zip(*places)))
        scene = jax.tree.map(lambda leaf, i=number: np.asarray(leaf)[i], scenes)
        videos.append(to_uint8(_rendered(scene, np.array(frames, np.int32), places, size)))
    return np.stack(videos)


def continued(
    model: Model, settings: SampleSettings, prompts: Sequence[str], clips: np.ndarray, way: str, frames: int, seed: int
) -> np.ndarray:
    """The next `frames` frames uint8 [n, frames, h, w, 3] of true clips uint8 [n, f, h, w, 3], all in one batch.

    way: one of WAYS; without anchor, the long-term memory is a picture without content.
    """
    anchor = to_floats(clips[:, settings.anchor_frame])
    if way != WAYS[0]:
        anchor = np.full_like(anchor, model.config.contract.null_anchor)
    chunks = stream(model, prompts, state=after_chunk(model, clips, anchor, seed), settings=settings)
    made, count = [], 0
    while count < frames:
        made.append(to_uint8(next(chunks)[0]))
        count += made[-1].shape[1]
    return np.concatenate(made, 1)[:, :frames]


def coloured(clips: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The share [n] of the pixels of clips uint8 [n, f, h, w, 3] that have the colours [n], indices into COLOURS."""
    wanted = COLOUR_RGB / np.linalg.norm(COLOUR_RGB, axis=-1, keepdims=True)
    shares = []
    for clip, index in zip(clips, colour):
        pixels = clip.astype(np.float32)
        cosine = pixels @ wanted[index] / np.maximum(np.linalg.norm(pixels, axis=-1), 1)
        shares.append(((cosine > ALIKE) & (pixels.max(-1) > BRIGHT)).mean())
    return np.array(shares)


def compared(
    params: dict[str, Any], before: np.ndarray, hidden: np.ndarray, after: np.ndarray, colour: np.ndarray
) -> dict[str, list[float]]:
    """NUMBERS [n] of clips uint8 [n, 16, h, w, 3] after the object came back, next to those before it went.

    hidden: uint8 [n, f, h, w, 3], the clips without it. colour: [n] of the objects.

    `back` is 1 where enough pixels have the object's colour again. `identity` is that of the checker, and `colour`,
    `shape` and `pattern` are 1 where it reads the same in both; all are 0 where the object is not back. `size` is the
    ratio of the radii, and `ground` the distance of the colours around the middle, from 0 to 1.
    """
    ground = coloured(hidden, colour)
    was, now = (coloured(clips, colour) - ground for clips in (before, after))
    back = (now > ENOUGH * was).astype(float)
    first, last = (checker.posteriors(params, to_floats(clips)) for clips in (before, after))
    same = lambda name: back * (first[name].argmax(-1) == last[name].argmax(-1))
    outside = around_the_middle(before.shape[2])
    colours = lambda clips: [histograms([clip[:, outside]])[0] for clip in clips]
    numbers = {
        'back': back,
        'identity': back * checker.identity(first, last),
        **{name: same(name) for name in ('colour', 'shape', 'pattern')},
        'size': checker.radii(last['size']) / checker.radii(first['size']),
        'ground': [histogram_distances(b[None], a)[0] for a, b in zip(colours(before), colours(after))],
    }
    return {name: [round(float(value), 4) for value in numbers[name]] for name in NUMBERS}


def method(text: str) -> Method:
    """'NAME=WAY:WEIGHTS' as for st2v evaluate methods, with one of WAYS."""
    found = evaluate_methods.method(text)
    if found.way not in WAYS or found.name in (TRUTH, OTHERS):
        raise argparse.ArgumentTypeError(f'must be NAME=WAY:WEIGHTS, where a way is {" or ".join(WAYS)}, not {text!r}')
    return found


def main(argv=None) -> int:
    """Makes the videos, measures them, and writes and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--method', type=method, action='append', required=True, metavar='NAME=WAY:WEIGHTS')
    parser.add_argument('--checker', required=True, help='npz file of st2v evaluate train-checker')
    parser.add_argument('--out', required=True, type=Path, help='folder; goes on with what is in it')
    parser.add_argument('--scenes', type=int, default=64, help='of each kind, all in one batch (default: 64)')
    parser.add_argument('--frames', type=int, default=64, help='that are made (default: 64)')
    parser.add_argument('--steps', type=int, default=20, help='denoising steps (default: 20)')
    parser.add_argument('--seed', type=int, default=5_000_003, help='of the scenes and of the noise')
    parser.add_argument('--dtype', choices=('bfloat16', 'float32'), help='default: what suits the device')
    parser.add_argument('--json', required=True, type=Path, help='file to write; a .jpg beside it has the pictures')
    arguments = parser.parse_args(argv)

    params, about = checker.load(arguments.checker)
    dtype, size, began = record.network_dtype(arguments.dtype), about['size'], time.monotonic()
    survey.check((params, about), size)
    scenes = hard_scenes(arguments.seed, arguments.scenes)
    prompts = brief(scenes)
    total = GIVEN + arguments.frames
    truth = {kind: rendered(scenes, kind, range(total), size) for kind in KINDS}
    videos, kept = {kind: {TRUTH: truth[kind]} for kind in KINDS}, []
    options = {name: getattr(arguments, name) for name in ('scenes', 'frames', 'steps', 'seed')}
    for name, way, weights in arguments.method:
        model = load(weights, dtype)
        if model.config.frame_size != (size, size):
            raise SystemExit(f'hard_scenes.py: {arguments.checker} works on {size} pixels, and {weights} does not')
        settings = model.settings(steps=arguments.steps)
        asked = options | {'way': way, 'settings': vars(settings), 'dtype': np.dtype(dtype).name}
        asked |= {'weights': fingerprint.of_weights(model.source)[0], 'kinds': [*KINDS], 'given': GIVEN}
        kept.append(Batches(arguments.out / name, asked))
        for number, kind in enumerate(KINDS):
            made = kept[-1].read(number)
            if made is None:
                clips = truth[kind][:, :GIVEN]
                made = continued(model, settings, prompts, clips, way, arguments.frames, arguments.seed)
                kept[-1].write(number, made)
            videos[kind][name] = np.concatenate([truth[kind][:, :GIVEN], made], 1)
            print(f'{name}, {kind}: {len(made)} videos after {time.monotonic() - began:.0f} s', flush=True)

    kinds, rows, labels = {}, [], []
    colour = np.asarray(scenes.colour)[:, 0]
    for kind, of_kind in videos.items():
        before, hidden = truth[kind][:, :FRAMES], truth[kind][:, GIVEN - FRAMES // 2 : GIVEN]
        measure = functools.partial(compared, params)
        kinds[kind] = {name: measure(before, hidden, video[:, -FRAMES:], colour) for name, video in of_kind.items()}
        others = (np.roll(some, 1, 0) for some in (before, hidden))
        kinds[kind][OTHERS] = measure(*others, truth[kind][:, -FRAMES:], np.roll(colour, 1))
        rows += [resized(video[0], (SIDE, SIDE)) for video in of_kind.values()]
        labels += [f'{kind}, {name}: {prompts[0]}' for name in of_kind]
        for name, numbers in kinds[kind].items():
            means = {number: estimate(values) for number, values in numbers.items()}
            told = [f'{number} {mean:.3f} ({low:.3f} to {high:.3f})' for number, (mean, low, high, _) in means.items()]
            print(f'{kind}, {name}: {", ".join(told)}')
    picture = arguments.json.with_suffix('.jpg')
    picture.parent.mkdir(parents=True, exist_ok=True)
    shown = [number for number in SHOWN if number < total] + [total] * (total not in SHOWN)
    sheets.contact_sheet(rows, shown, labels).save(picture, quality=QUALITY)
    command = shlex.join(['python', 'benchmarks/hard_scenes.py', *(sys.argv[1:] if argv is None else argv)])
    made = record.made(command) | options | {
        'dtype': np.dtype(dtype).name,
        'checker': hashlib.sha256(Path(arguments.checker).read_bytes()).hexdigest(),
        'given': GIVEN,
        'methods': {name: f'{way}:{weights}' for name, way, weights in arguments.method},
        'prompts': prompts,
        'seconds': time.monotonic() - began,
    }  # fmt: skip
    record.write(arguments.json, {'made': made, 'kinds': kinds})
    for batches in kept:
        batches.remove()
    return 0


if __name__ == '__main__':
    sys.exit(main())
