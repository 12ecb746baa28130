"""How well the gate tells chunks with a defect from true ones, on rendered scenes: fixes its limits, and reports them.

    python benchmarks/gate.py --rows runs/gate.jsonl --json docs/evaluation/gate.json

A chunk is the second half of 16 frames of a scene. It is true, at several speeds, or has a defect of known kind and
strength. The limits that `st2v_jax/streaming/gate.py` has are those of one seed; the figures are those of another. The
scores of each scene are a line of --rows, so a run that was stopped goes on.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from st2v_jax.data import world
from st2v_jax.data.world import Scene
from st2v_jax.evaluation import record, survey
from st2v_jax.models import build
from st2v_jax.open_model import load_weights
from st2v_jax.streaming import gate
from st2v_jax.video_io import to_floats, to_uint8

FIXED_ON, REPORTED_ON = 20, 21  # seeds of the world
MEMORY, LENGTH, SIZE = 8, 16, 128
LATER = 37  # frames
FOUND = 0.97  # share of the defects of its own kind that the limit of a score finds on the first seed
FOLLOWING = 32  # scenes among which one over the same ground is looked for
CODED = 4  # one in so many scenes also goes through the autoencoder, which takes long

# Defects that are told but not counted: too weak to disturb, or, where a scene comes back, none at all
WEAK = ('brightness, 6 levels', 'one colour, 10 levels', 'contrast, 1.3', 'saturation, 1.3', 'the same scene later')


def speed(scene: Scene, factor: float) -> Scene:
    """The scene with everything `factor` times as fast; 0 is a still picture."""
    if not factor:
        return scene._replace(velocity=0 * scene.velocity, camera=0 * scene.camera, period=10**6 * scene.period)
    longer = lambda frames: np.maximum(1, np.round(np.asarray(frames) / factor)).astype(np.int32)
    times = {name: longer(getattr(scene, name)) for name in ('period', 'phase', 'zoom_period', 'zoom_phase')}
    return scene._replace(velocity=np.int32(np.asarray(scene.velocity) * factor), **times)


def clip(scene: Scene, start: int, factor: float = 1) -> np.ndarray:
    """Frames uint8 [16, h, w, 3] of a scene at another speed."""
    return to_uint8(world.render(speed(scene, factor), start + np.arange(LENGTH), SIZE))


SPEEDS = {'as rendered': 1, 'twice as fast': 2, 'three times as fast': 3, 'a quarter as fast': 1 / 4}
SPEEDS |= {'an eighth as fast': 1 / 8, 'a still picture': 0}


def chunks(number: int, scene: Scene, other: Scene, alike: Scene, start: int, coded: Callable | None) -> dict[str, Any]:
    """{group: {kind: frames uint8 [16, h, w, 3]}}; the group 'true' has no defect, others are named after a score.

    other, alike: other scenes, `alike` over the same ground; number decides signs and channels.
    """
    rng = np.random.default_rng(number)
    sign, fast, slow = (-1) ** number, SPEEDS['twice as fast'], SPEEDS['a quarter as fast']
    noisy = lambda clip, levels: _rounded(clip + levels * rng.standard_normal(clip.shape))
    true = {name: clip(scene, start, factor) for name, factor in SPEEDS.items()}
    plain, slowly = true['as rendered'], true['a quarter as fast']
    still = true['a still picture']
    true |= {'as rendered, noise of 2 levels': noisy(plain, 2), 'a still picture, noise of 2 levels': noisy(still, 2)}
    if coded is not None:
        true['through the autoencoder'] = coded(plain)
    stopped = lambda clip, at: np.concatenate([clip[:at], np.repeat(clip[at - 1 : at], LENGTH - at, 0)])
    joined = lambda clip, rest: np.concatenate([clip[:MEMORY], _rounded(rest[MEMORY:])])
    changed = lambda change: joined(plain, change(plain.astype(np.float32)))
    grey = lambda clip: clip.mean(-1, keepdims=True)
    middle = lambda clip: clip.mean((1, 2), keepdims=True)
    one = np.eye(3)[number % 3]
    grows = np.clip(np.arange(1 - MEMORY, LENGTH - MEMORY + 1) / (LENGTH - MEMORY), 0, 1)[:, None, None, None]
    return {
        'true': true,
        'still': {
            'frozen': stopped(plain, MEMORY),
            'frozen, noise of 2 levels': noisy(stopped(plain, MEMORY), 2),
            'frozen, noise of 4 levels': noisy(stopped(plain, MEMORY), 4),
            'frozen from its third frame on': stopped(plain, MEMORY + 3),
            'frozen, a quarter as fast before': stopped(slowly, MEMORY),
        },
        'cut': {
            'another scene': joined(plain, clip(other, start)),
            'another scene, twice as fast': joined(true['twice as fast'], clip(other, start, fast)),
            'another scene, a quarter as fast': joined(slowly, clip(other, start, slow)),
            'another scene over the same ground': joined(plain, clip(alike, start)),
            'the same scene later': joined(plain, clip(scene, start + LATER)),
        },
        'colour': {
            **{f'brightness, {by} levels': changed(lambda x, by=by: x + sign * by) for by in (6, 10, 16, 24)},
            **{f'one colour, {by} levels': changed(lambda x, by=by: x + sign * by * one) for by in (10, 16, 24, 32)},
            **{f'gamma {g}': changed(lambda x, g=g: 255 * (x / 255) ** (g**sign)) for g in (0.8, 0.6)},
            **{f'contrast, {by}': changed(lambda x, by=by: middle(x) + by * (x - middle(x))) for by in (1.3, 1.6, 2.0)},
        },
        'saturation': {
            **{f'saturation, {by}': changed(lambda x, by=by: grey(x) + by * (x - grey(x))) for by in (1.3, 1.6, 2, 3)},
            **{
                f'saturation, rising to {by}': changed(lambda x, by=by: grey(x) + by**grows * (x - grey(x)))
                for by in (2, 3)
            },
        },
    }


def _rounded(clip):
    return np.uint8(np.clip(np.round(clip), 0, 255))


def scored(number: int, seed: int, scenes: Scene, start: int, coded: Callable | None) -> dict[str, Any]:
    """{group: {kind: scores}} of the chunks of one scene."""
    one = lambda i: jax.tree.map(lambda leaf: np.asarray(leaf)[i], scenes)
    ground = np.asarray(scenes.background)
    later = range(number + 1, number + 1 + FOLLOWING)
    alike = next((i for i in later if ground[i] == ground[number]), later[0])
    made = chunks(number, one(number), one(later[0]), one(alike), start, coded if number % CODED == 0 else None)
    found = {
        group: {kind: gate.scores(clip[MEMORY:], clip[:MEMORY]) for kind, clip in kinds.items()}
        for group, kinds in made.items()
    }
    broken = to_floats(made['true']['as rendered'])[MEMORY:]
    found['not_finite'] = {}
    for kind, where in (('one number NaN', (3, 9, 9, 1)), ('one number infinite', (7, 0, 0, 0)), ('all NaN', ...)):
        bad = np.array(broken)
        bad[where] = np.inf if 'infinite' in kind else np.nan
        found['not_finite'][kind] = gate.scores(bad, made['true']['as rendered'][:MEMORY])
    return {'seed': seed, 'scene': number, 'scores': found}


def rows(file: Path, count: int, coded: Callable) -> list[dict[str, Any]]:
    """The scores of `count` scenes of each seed; those that the file lacks are computed and added."""
    there = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {(row['seed'], row['scene']) for row in there}
    for seed in (FIXED_ON, REPORTED_ON):
        drawn = [np.random.default_rng([seed, number]) for number in range(count + FOLLOWING)]
        scenes = survey.many_scenes(seed, np.array([rng.integers(2**31 - 1) for rng in drawn], np.int32))
        for number in range(count):
            if (seed, number) not in known:
                there.append(scored(number, seed, scenes, int(drawn[number].integers(1000)), coded))
                with open(file, 'a') as opened:
                    opened.write(json.dumps(there[-1]) + '\n')
    return [row for row in there if row['scene'] < count]


def limits(found: list[dict[str, Any]]) -> dict[str, float]:
    """The limit of each score: the highest of two digits that finds FOUND of the defects of its kind."""
    values = {}
    for name in gate.LIMITS:
        if name != 'not_finite':
            kinds = [row['scores'][name] for row in found]
            own = [scores[name] for row in kinds for kind, scores in row.items() if kind not in WEAK]
            lowest = float(np.quantile(own, 1 - FOUND))
            digits = 1 - int(np.floor(np.log10(lowest)))
            values[name] = round(float(np.floor(lowest * 10**digits) / 10**digits), 6)
    return values


def shares(found: list[dict[str, Any]], group: str) -> dict[str, Any]:
    """{kind: {'chunks': how many, 'flagged': share of them}} of a group, and which scores flag how much of each."""
    told = {}
    for kind in dict.fromkeys(kind for row in found for kind in row['scores'][group]):
        flagged = [gate.faults(row['scores'][group][kind]) for row in found if kind in row['scores'][group]]
        by = {name: sum(name in faults for faults in flagged) for name in gate.LIMITS}
        told[kind] = {
            'chunks': len(flagged),
            'flagged': sum(map(bool, flagged)),
            'by': {name: count for name, count in by.items() if count},
        }
    return told


def main(argv=None) -> int:
    """Scores the chunks, and writes and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', required=True, type=Path, help='file with the scores of each scene; goes on with it')
    parser.add_argument('--scenes', type=int, default=128, help='of each seed (default: 128)')
    parser.add_argument('--json', type=Path, help='file to write')
    arguments = parser.parse_args(argv)

    found = rows(arguments.rows, arguments.scenes, autoencoder())
    seeds = {seed: [row for row in found if row['seed'] == seed] for seed in (FIXED_ON, REPORTED_ON)}
    fixed = limits(seeds[FIXED_ON])
    groups = ('true', *gate.LIMITS)
    told = {
        'made': record.made('python benchmarks/gate.py'),
        'limits': {'fixed': fixed, 'in use': gate.LIMITS},
        'not counted': WEAK,
        'seeds': {seed: {group: shares(some, group) for group in groups} for seed, some in seeds.items()},
    }
    if arguments.json:
        record.write(arguments.json, told)
    print(f'limits that find {FOUND:.0%} on seed {FIXED_ON}: {fixed}; in use: {gate.LIMITS}')
    for seed, kinds in told['seeds'].items():
        for group, some in kinds.items():
            for kind, share in some.items():
                print(f'seed {seed}, {group}, {kind}: {share["flagged"]} of {share["chunks"]}, {share["by"]}')
        for what, names in (('false alarms', ['true']), ('found', [*gate.LIMITS])):
            some = [share for name in names for kind, share in kinds[name].items() if kind not in WEAK]
            flagged, count = (sum(share[name] for share in some) for name in ('flagged', 'chunks'))
            print(f'seed {seed}, {what}: {flagged} of {count}, {flagged / count:.1%}')
    return 0


def autoencoder() -> Callable:
    """A function that codes and decodes a clip uint8 [f, h, w, 3] with the small model's autoencoder."""
    config, params = load_weights(None, ('vae',))
    vae = build.vae(config, np.float32)

    @jax.jit
    def run(frames):
        latents, _ = vae(params['vae'], frames, method='encode')
        return vae(params['vae'], latents, method='decode')

    return lambda clip: to_uint8(run(to_floats(clip)))


if __name__ == '__main__':
    sys.exit(main())
