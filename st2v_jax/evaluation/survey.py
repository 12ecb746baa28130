"""Measures long videos made from captions, window by window, next to the ground truth: the numbers of the model's page.

The captions are those of scenes with one object, with combinations of colour, shape and motion that do not occur in
training. Videos are measured in windows of 16 frames around frames 8, 64 and 240, counted from 1. The ground truth,
rendered from the same scene, is measured in the same way.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from st2v_jax.data import world
from st2v_jax.data.world import Scene
from st2v_jax.evaluation.checker import CLASSES, FRAMES, identity, posteriors
from st2v_jax.metrics.motion import motion
from st2v_jax.video_io import to_floats, to_uint8

PLACES = (8, 64, 240)
ASKED = ('colour', 'shape', 'motion')  # attributes that every caption names


def windows_of(num_frames: int) -> dict[int, slice]:
    """The windows of a video: 16 frames around each frame of PLACES that it has, and around its last frame."""
    if num_frames < FRAMES:
        raise ValueError(f'a video must have at least {FRAMES} frames to be measured, got {num_frames}')
    chosen = sorted({place for place in PLACES if place <= num_frames} | {num_frames})
    starts = [min(max(place - FRAMES // 2, 0), num_frames - FRAMES) for place in chosen]
    return {place: slice(start, start + FRAMES) for place, start in zip(chosen, starts)}


def unseen_scenes(seed: int, count: int) -> tuple[np.ndarray, Scene]:
    """Held-out scenes with one object: their indices [count], and a Scene with a leading axis."""
    asked = 2 * count
    while True:  # more than half of the held-out scenes have one object
        found = world.split_indices('held_out', seed, 0, asked)
        found = found[np.asarray(many_scenes(seed, found).count) == 1][:count]
        if len(found) == count:
            return found, many_scenes(seed, found)
        asked *= 2


@jax.jit
def many_scenes(seed: int, indices: jax.Array) -> Scene:
    """The scenes with indices [n], with a leading axis n."""
    return jax.vmap(world.scene, (None, 0))(seed, indices)


def said(scenes: Scene) -> dict[str, np.ndarray]:
    """The attributes of n scenes as class numbers, {head: [n]}. Some captions do not name the pattern."""
    return {name: np.asarray(getattr(scenes, name))[:, 0] for name in CLASSES}


def captions(scenes: Scene, variant: int = 0) -> list[str]:
    """A caption for each of the scenes, which have a leading axis."""
    n = len(scenes.count)
    return [world.caption(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], scenes), variant) for i in range(n)]


@functools.partial(jax.jit, static_argnums=2)
def _render(scene, indices, size):
    frames = world.render(scene, indices, size)
    return ((frames + 1) * 127.5).round().astype(np.uint8)


def rendering(scenes: Scene, frames: range, size: int) -> np.ndarray:
    """Ground-truth videos uint8 [n, f, size, size, 3]; frames are numbered from 0 on."""
    n = len(scenes.count)
    scene = lambda i: jax.tree.map(lambda leaf: np.asarray(leaf)[i], scenes)
    return np.stack([np.asarray(_render(scene(i), np.array(frames, np.int32), size)) for i in range(n)])


def right(believed: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, float]:
    """The share of clips whose most probable class is the label, for each attribute and for all of them together."""
    hits = {name: believed[name].argmax(-1) == labels[name] for name in ASKED}
    hits['all'] = np.logical_and.reduce(list(hits.values()))
    return {name: float(hit.mean()) for name, hit in hits.items()}


def right_for_others(believed: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, float]:
    """The same shares if each clip is judged by the captions of the others, which is the score of chance."""
    n = len(labels['colour'])
    if n < 2:
        return dict.fromkeys((*ASKED, 'all'), 0.0)
    shifts = [right(believed, {name: np.roll(label, k) for name, label in labels.items()}) for k in range(1, n)]
    return {name: float(np.mean([shift[name] for shift in shifts])) for name in shifts[0]}


def survey(videos: np.ndarray, scenes: Scene, checker: tuple[dict, dict]) -> dict[str, Any]:
    """Measures videos that were made from the captions of scenes.

    Args:
      videos: uint8 [n, f, h, w, 3].
      scenes: n scenes, with a leading axis.
      checker: (params, about) of `checker.load`.

    Returns:
      A JSON dict: shares of videos by window; flow in pixels per frame, change and detail in grey values of 0..255 (see
      metrics/motion.py); identity in 0..1 (see `checker.identity`).
    """
    params, about = checker
    n, num_frames, size = videos.shape[:3]
    if about['size'] != size:
        raise ValueError(f'the checker was trained on {about["size"]} pixels, but the videos have {size}')
    labels, windows = said(scenes), windows_of(num_frames)
    believed, result = {}, {'places': {}}
    for place, window in windows.items():
        truth = rendering(scenes, range(window.start, window.stop), size)
        shown = videos[:, window]
        believed[place] = {
            kind: posteriors(params, to_floats(to_uint8(clips)))
            for kind, clips in (('generated', shown), ('truth', truth))
        }
        with ThreadPoolExecutor() as pool:  # OpenCV releases the interpreter lock while it works
            moved = {kind: list(pool.map(motion, clips)) for kind, clips in (('generated', shown), ('truth', truth))}
        result['places'][str(place)] = {
            'frames': [window.start + 1, window.stop],
            'right': {
                **{kind: right(believed[place][kind], labels) for kind in ('generated', 'truth')},
                'shuffled': right_for_others(believed[place]['generated'], labels),
            },
            'motion': {
                kind: {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
                for kind, rows in moved.items()
            },
            'flow_ratio_median': float(
                np.median([g['flow'] / max(t['flow'], 1e-3) for g, t in zip(moved['generated'], moved['truth'])])
            ),
        }
    first, last = min(windows), max(windows)
    alike = lambda kind, shift=0: float(
        np.mean(
            identity(believed[first][kind], {name: np.roll(p, shift, 0) for name, p in believed[last][kind].items()})
        )
    )
    result['identity'] = {
        'from': first,
        'to': last,
        'generated': alike('generated'),
        'truth': alike('truth'),
        'others': float(np.mean([alike('generated', k) for k in range(1, n)])) if n > 1 else 0.0,
    }
    names = lambda head, number: CLASSES[head][int(number)]
    result['videos'] = [
        {
            'caption': caption,
            'said': [names(head, labels[head][i]) for head in ASKED],
            'seen': {
                str(place): [names(head, believed[place]['generated'][head][i].argmax()) for head in ASKED]
                for place in windows
            },
        }
        for i, caption in enumerate(captions(scenes))
    ]
    return result
