"""Measures long videos made from captions, window by window, next to the ground truth: the numbers of the model's page.

The captions are those of scenes with one object, with combinations of colour, shape and motion that do not occur in
training. Videos are measured in windows of 16 frames around frames 8, 64 and 240, counted from 1. The ground truth,
rendered from the same scene, is measured in the same way. No caption names the size of its object, so it is compared
with the ground truth, and with that of the same video around frame 8.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from st2v_jax.data import world
from st2v_jax.data.world import Scene
from st2v_jax.evaluation.checker import CLASSES, FRAMES, identity, posteriors, radii
from st2v_jax.metrics.motion import motion
from st2v_jax.video_io import to_floats, to_uint8

PLACES = (8, 64, 240)
ASKED = ('colour', 'shape', 'motion')  # attributes that every caption names
NAMED = (*ASKED, 'pattern')  # and those that a caption may name
KEPT = 1.15  # an object is as large as it was if it is at most this many times larger or smaller


def windows_of(num_frames: int) -> dict[int, slice]:
    """The windows of a video: 16 frames around each frame of PLACES that it has, and around its last frame."""
    if num_frames < FRAMES:
        raise ValueError(f'a video must have at least {FRAMES} frames to be measured, got {num_frames}')
    chosen = sorted({place for place in PLACES if place <= num_frames} | {num_frames})
    starts = [min(max(place - FRAMES // 2, 0), num_frames - FRAMES) for place in chosen]
    return {place: slice(start, start + FRAMES) for place, start in zip(chosen, starts)}


def unseen_scenes(
    seed: int, count: int, fits: Callable[[Scene], np.ndarray] = lambda scenes: True
) -> tuple[np.ndarray, Scene]:
    """Held-out scenes with one object: their indices [count], and a Scene with a leading axis.

    fits: Scene with leaves [n, ...] -> bool [n], which of them are wanted.
    """
    asked = 2 * count
    while True:  # more than half of the held-out scenes have one object
        found = world.split_indices('held_out', seed, 0, asked)
        scenes = jax.tree.map(np.asarray, many_scenes(seed, found))
        found = found[(scenes.count == 1) & fits(scenes)][:count]
        if len(found) == count:
            return found, many_scenes(seed, found)
        asked *= 2


@jax.jit
def many_scenes(seed: int, indices: jax.Array) -> Scene:
    """The scenes with indices [n], with a leading axis n."""
    return jax.vmap(world.scene, (None, 0))(seed, indices)


def check(checker: tuple[dict, dict], size: int) -> None:
    """Raises ValueError if a checker cannot judge videos of size x size pixels."""
    params, about = checker
    if about['size'] != size:
        raise ValueError(f'the checker was trained on {about["size"]} pixels, but the videos have {size}')
    lacking = [name for name in CLASSES if name not in params['heads']]
    if lacking:
        raise ValueError(
            f'the checker does not read {" and ".join(lacking)}; make a new one with st2v evaluate train-checker'
        )


def said(scenes: Scene) -> dict[str, np.ndarray]:
    """What the captions of n scenes say as class numbers, {name: [n]}; -1 where one does not say the pattern."""
    numbers = {name: np.asarray(getattr(scenes, name))[:, 0] for name in NAMED}
    brief = [world.is_brief(scene) for scene in _each(scenes)]
    return numbers | {'pattern': np.where(brief, -1, numbers['pattern'])}


def captions(scenes: Scene, variant: int = 0) -> list[str]:
    """A caption for each of the scenes, which have a leading axis."""
    return [world.caption(scene, variant) for scene in _each(scenes)]


def _each(scenes):
    scenes = jax.tree.map(np.asarray, scenes)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], scenes) for i in range(len(scenes.count))]


@functools.partial(jax.jit, static_argnums=2)
def _render(scene, indices, size):
    frames = world.render(scene, indices, size)
    return ((frames + 1) * 127.5).round().astype(np.uint8)


def rendering(scenes: Scene, frames: range, size: int) -> np.ndarray:
    """Ground-truth videos uint8 [n, f, size, size, 3]; frames are numbered from 0 on."""
    return np.stack([np.asarray(_render(scene, np.array(frames, np.int32), size)) for scene in _each(scenes)])


def right(believed: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, float | None]:
    """The share of clips whose most probable class is the label, for each attribute; labels as from `said`.

    'all' is for those of ASKED together. The share of 'pattern' is over the clips whose caption says it, and None if
    none does.
    """
    hits = {name: believed[name].argmax(-1) == labels[name] for name in ASKED}
    hits['all'] = np.logical_and.reduce(list(hits.values()))
    hits['pattern'] = (believed['pattern'].argmax(-1) == labels['pattern'])[labels['pattern'] >= 0]
    return {name: float(hit.mean()) if len(hit) else None for name, hit in hits.items()}


def reads(believed: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{attribute: [n]}, 1 for clips of which the checker reads what the caption says; nan where it says nothing."""
    seen = {name: believed[name].argmax(-1) for name in NAMED}
    hits = {name: np.where(labels[name] < 0, np.nan, seen[name] == labels[name]) for name in NAMED}
    return hits | {'all': np.minimum.reduce([hits[name] for name in ASKED])}


def flow_ratios(generated: list[dict[str, float]], truth: list[dict[str, float]]) -> np.ndarray:
    """The flow of clips over that of the truth, [n], from what `motion` found."""
    return np.array([mine['flow'] / max(true['flow'], 1e-3) for mine, true in zip(generated, truth)])


def right_for_others(believed: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, float | None]:
    """The same shares if each clip is judged by the captions of the others, which is the score of chance."""
    n = len(labels['colour'])
    if n < 2:
        return dict.fromkeys((*ASKED, 'all', 'pattern'), 0.0)
    shifts = [right(believed, {name: np.roll(label, k) for name, label in labels.items()}) for k in range(1, n)]
    mean = lambda shares: None if None in shares else float(np.mean(shares))
    return {name: mean([shift[name] for shift in shifts]) for name in shifts[0]}


def sizes(now: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> dict[str, Any]:
    """How large objects are, from their radii [n] in a window and in the first one: {'generated', 'truth'} each.

    Returns:
      For both kinds 'ratio', to the first window, median over the videos, and 'kept', the share of videos whose ratio
      is within KEPT; 'to_truth', the median ratio of the generated to the true radii.
    """
    ratios = {kind: now[kind] / first[kind] for kind in now}
    return {
        kind: {'ratio': float(np.median(ratio)), 'kept': float((np.abs(np.log(ratio)) <= np.log(KEPT)).mean())}
        for kind, ratio in ratios.items()
    } | {'to_truth': float(np.median(now['generated'] / now['truth']))}


def survey(videos: np.ndarray, scenes: Scene, checker: tuple[dict, dict]) -> dict[str, Any]:
    """Measures videos that were made from the captions of scenes.

    Args:
      videos: uint8 [n, f, h, w, 3].
      scenes: n scenes, with a leading axis.
      checker: (params, about) of `checker.load`.

    Returns:
      A JSON dict: shares of videos by window; flow in pixels per frame, change and detail in grey values of 0..255 (see
      metrics/motion.py); size (see `sizes`); identity in 0..1 (see `checker.identity`). 'at' of each video has numbers
      for each window: 1 where the checker reads what the caption says, flow over that of the truth, size over that of
      the first window, identity with it.
    """
    n, num_frames, size = videos.shape[:3]
    check(checker, size)
    params, _ = checker
    labels, windows = said(scenes), windows_of(num_frames)
    first, last = min(windows), max(windows)
    believed, radius, moved, result = {}, {}, {}, {'places': {}}
    for place, window in windows.items():
        truth = rendering(scenes, range(window.start, window.stop), size)
        shown = videos[:, window]
        believed[place] = {
            kind: posteriors(params, to_floats(to_uint8(clips)))
            for kind, clips in (('generated', shown), ('truth', truth))
        }
        radius[place] = {kind: radii(found['size']) for kind, found in believed[place].items()}
        with ThreadPoolExecutor() as pool:  # OpenCV releases the interpreter lock while it works
            moved[place] = {
                kind: list(pool.map(motion, clips)) for kind, clips in (('generated', shown), ('truth', truth))
            }
        result['places'][str(place)] = {
            'frames': [window.start + 1, window.stop],
            'right': {
                **{kind: right(believed[place][kind], labels) for kind in ('generated', 'truth')},
                'shuffled': right_for_others(believed[place]['generated'], labels),
            },
            'size': sizes(radius[place], radius[first]),
            'motion': {
                kind: {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
                for kind, rows in moved[place].items()
            },
            'flow_ratio_median': float(np.median(flow_ratios(**moved[place]))),
        }
    overlap = lambda kind, place=last, shift=0: identity(
        believed[first][kind], {name: np.roll(p, shift, 0) for name, p in believed[place][kind].items()}
    )
    alike = lambda kind, shift=0: float(np.mean(overlap(kind, shift=shift)))
    result['identity'] = {
        'from': first,
        'to': last,
        'generated': alike('generated'),
        'truth': alike('truth'),
        'others': float(np.mean([alike('generated', k) for k in range(1, n)])) if n > 1 else 0.0,
    }
    numbers = {
        place: reads(found['generated'], labels)
        | {
            'flow': flow_ratios(**moved[place]),
            'size': radius[place]['generated'] / radius[first]['generated'],
            'identity': overlap('generated', place),
        }
        for place, found in believed.items()
    }
    names = lambda head, number: CLASSES[head][number] if number >= 0 else None
    result['videos'] = [
        {
            'caption': caption,
            'said': [names(head, labels[head][i]) for head in NAMED],
            'seen': {
                str(place): [names(head, believed[place]['generated'][head][i].argmax()) for head in NAMED]
                for place in windows
            },
            'at': {
                str(place): {name: None if np.isnan(values[i]) else float(values[i]) for name, values in found.items()}
                for place, found in numbers.items()
            },
        }
        for i, caption in enumerate(captions(scenes))
    ]
    return result
