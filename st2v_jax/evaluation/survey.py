"""What long videos of captions show, window by window, beside ground truth: the numbers of docs/small-model.md.

Captions are those of one-object scenes of the world whose combination of colour, shape and motion no training scene
has. Each video is looked at in windows of 16 frames around its frames 8, 64 and 240 (counted from 1), and everything
measured there is measured in the scene's own rendering too.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from st2v_jax.data import world
from st2v_jax.evaluation.checker import CLASSES, FRAMES, identity, posteriors
from st2v_jax.metrics.motion import motion
from st2v_jax.video_io import to_floats, to_uint8

PLACES = (8, 64, 240)
ASKED = ('colour', 'shape', 'motion')  # what every caption names


def windows_of(num_frames):
    """{place: slice of 16 frames around it} for the places within the video, and for its end."""
    if num_frames < FRAMES:
        raise ValueError(f'a video needs {FRAMES} frames or more to be looked at, got {num_frames}')
    chosen = sorted({place for place in PLACES if place <= num_frames} | {num_frames})
    starts = [min(max(place - FRAMES // 2, 0), num_frames - FRAMES) for place in chosen]
    return {place: slice(start, start + FRAMES) for place, start in zip(chosen, starts)}


def unseen_scenes(seed, count):
    """(indices [count], their Scene with leading axis) of held-out scenes with one object."""
    asked = 2 * count
    while True:  # more than half of the held-out scenes show one object
        found = world.split_indices('held_out', seed, 0, asked)
        found = found[np.asarray(many_scenes(seed, found).count) == 1][:count]
        if len(found) == count:
            return found, many_scenes(seed, found)
        asked *= 2


@jax.jit
def many_scenes(seed, indices):
    """Scenes of indices [n], with leading axis n."""
    return jax.vmap(world.scene, (None, 0))(seed, indices)


def said(scenes):
    """What the captions of scenes name, as class numbers: {head: [n]}, and the pattern, which some leave out."""
    return {name: np.asarray(getattr(scenes, name))[:, 0] for name in CLASSES}


def captions(scenes, variant=0):
    """One sentence for each of the scenes with leading axis."""
    n = len(scenes.count)
    return [world.caption(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], scenes), variant) for i in range(n)]


@functools.partial(jax.jit, static_argnums=2)
def _render(scene, indices, size):
    frames = world.render(scene, indices, size)
    return ((frames + 1) * 127.5).round().astype(np.uint8)


def rendering(scenes, frames, size):
    """Ground-truth videos [n, f, size, size, 3] as uint8; frames: a range of frame numbers from 0 on."""
    n = len(scenes.count)
    scene = lambda i: jax.tree.map(lambda leaf: np.asarray(leaf)[i], scenes)
    return np.stack([np.asarray(_render(scene(i), np.array(frames, np.int32), size)) for i in range(n)])


def right(believed, labels):
    """Shares of clips whose most probable class is the label: each of what was asked for, and all at once."""
    hits = {name: believed[name].argmax(-1) == labels[name] for name in ASKED}
    hits['all'] = np.logical_and.reduce(list(hits.values()))
    return {name: float(hit.mean()) for name, hit in hits.items()}


def right_for_others(believed, labels):
    """The same shares when each clip is judged by every other clip's caption: what chance would score."""
    n = len(labels['colour'])
    if n < 2:
        return dict.fromkeys((*ASKED, 'all'), 0.0)
    shifts = [right(believed, {name: np.roll(label, k) for name, label in labels.items()}) for k in range(1, n)]
    return {name: float(np.mean([shift[name] for shift in shifts])) for name in shifts[0]}


def survey(videos, scenes, checker):
    """All numbers of n videos [n, f, h, w, 3] (uint8) made from the captions of n scenes, as a JSON dict.

    checker: (params, about) of checker.load. Shares are of videos; flow in pixels a frame, change and detail in grey
    values of 0..255, see metrics/motion.py; identity in 0..1, see checker.identity.
    """
    params, about = checker
    n, num_frames, size = videos.shape[:3]
    if about['size'] != size:
        raise ValueError(f'the checker was trained on {about["size"]} pixels, the videos have {size}')
    labels, windows = said(scenes), windows_of(num_frames)
    believed, result = {}, {'places': {}}
    for place, window in windows.items():
        truth = rendering(scenes, range(window.start, window.stop), size)
        shown = videos[:, window]
        believed[place] = {
            kind: posteriors(params, to_floats(to_uint8(clips)))
            for kind, clips in (('generated', shown), ('truth', truth))
        }
        with ThreadPoolExecutor() as pool:  # OpenCV lets go of the interpreter while it works
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
