"""The page about the paper's claims, docs/evaluation/claims.md, from stored JSON: each with figures and a verdict."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from st2v_jax.evaluation import stored
from st2v_jax.evaluation.intervals import Estimate, estimate, paired
from st2v_jax.evaluation.pages import table
from st2v_jax.evaluation.refinement_page import NAMES
from st2v_jax.evaluation.refinement_page import STUDY as REFINE
from st2v_jax.evaluation.tables import interval, shown
from st2v_jax.storage.atomic import write_bytes

HOLDS, FAILS, OPEN = 'holds', 'does not hold', 'not decided here'
FOR, AGAINST, NEITHER = 'for', 'against', 'open'
METHODS, HARD = 'st2v evaluate methods --json', 'benchmarks/hard_scenes.py'  # which write what the page is made of
LOWER, HIGHER, NEAR_ONE = 'lower is better', 'higher is better', 'nearer to 1 is better'

Values = Sequence[float | None]


class Number(NamedTuple):
    """A number of every video by which a claim is judged.

    Attributes:
      name: in the stored JSON.
      title: on the page.
      better: LOWER, HIGHER or NEAR_ONE.
    """

    name: str
    title: str
    better: str

    def gain(self, mine: Values, other: Values) -> Estimate:
        """By how much `mine` is better than `other`, over pairs of videos; the distance from 1 for NEAR_ONE."""
        if self.better == NEAR_ONE:
            mine, other = ([None if value is None else abs(value - 1) for value in side] for side in (mine, other))
        return paired(mine, other) if self.better != HIGHER else paired(other, mine)


class Row(NamedTuple):
    """A number by which two ways are compared, and what it says about the claim."""

    compared: str
    title: str
    found: Estimate
    says: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
      title: heading.
      text: what the paper says, and how it is looked at here.
      numbers: by which it is judged: those of the first method against each other one.
      files: of `st2v evaluate methods --json`, in the folder of stored files.
    """

    title: str
    text: str
    numbers: tuple[Number, ...] = ()
    files: tuple[str, ...] = ()


SEAMS = (
    Number('scuts', 'SCuts', LOWER),
    Number('mawe', 'MAWE', LOWER),
    Number('border_ratio', 'border ratio', NEAR_ONE),
)
MEMORIES = Claim(
    '1. CAM joins chunks better than Add-Cond and Conc-Cond',
    'The paper compares CAM, without APM, with two other short-term memories, trained on the same data for as many '
    'steps. Motion is kept where the flow at the end is that of the truth, and the motion that of the caption.',
    (*SEAMS, Number('flow_240', 'flow to the truth at 240', NEAR_ONE), Number('motion_240', 'motion at 240', HIGHER)),
    ('memories.json',),
)
ANCHOR = Claim(
    '2. APM keeps what is in the first frame',
    'CAM with APM against CAM alone. LPIPS and SSIM compare every frame with the first one, which is the anchor; what '
    'moves is a difference to them, so a video that stands still would score best. CLIP is that of the model.',
    (
        Number('identity_240', 'identity at 240', HIGHER),
        Number('lpips_first', 'LPIPS to the anchor', LOWER),
        Number('ssim_first', 'SSIM to the anchor', HIGHER),
        Number('clip', 'CLIP score', HIGHER),
        Number('identity_1200', 'identity at 1,200', HIGHER),
    ),
    ('anchor.json', 'long.json'),
)
BLENDING = Claim(
    '3. Randomized blending joins refined chunks without seams',
    'B are independent chunks, B+S shares noise among them. The paper shows that the flow deviates less over time with '
    'each step. The videos are those of the [page about refinement](../refinement.md).',
    (Number('flow_deviation', 'deviation of flow', LOWER), Number('border_ratio', 'border ratio', NEAR_ONE)),
)
STABILITY = Claim(
    '4. Videos stay as they are from frame 240 to frame 1,200',
    'The same videos of CAM with APM at both places. A number may get worse by no more than its margin.',
    files=('long.json',),
)
BASELINES = Claim(
    '5. Streaming is better than other ways to make long videos from the same model',
    'FreeNoise makes all frames at once. The others make chunk after chunk: each from the last frame before it, or '
    'from the prompt alone.',
    (
        *SEAMS,
        Number('all_240', 'all attributes at 240', HIGHER),
        Number('identity_240', 'identity at 240', HIGHER),
        Number('flow_240', 'flow to the truth at 240', NEAR_ONE),
    ),
    ('baselines.json',),
)
HARD_SCENES = Claim(
    '6. What was out of sight comes back as it was',
    'Videos go on from a true clip in which the object has been out of sight for longer than CAM remembers. Prompts '
    'tell neither its pattern nor the ground. What comes back is compared with what was shown.',
    tuple(Number(name, name, HIGHER) for name in ('back', 'identity', 'pattern')),
)
MARGINS = {  # of claim 4: by how much a number may get worse
    Number('identity_{}', 'identity', HIGHER): 0.05,
    Number('all_{}', 'all attributes', HIGHER): 0.05,
    Number('flow_{}', 'flow to the truth', NEAR_ONE): 0.1,
    Number('size_{}', 'size to frame 8', NEAR_ONE): 0.1,
}
KINDS = {
    'leaves': 'the object leaves the picture',
    'shrinks': 'it goes so far away that its pattern cannot be seen',
    'turns': 'the camera turns away',
}
RULE = (
    'Every number is compared over pairs of videos with the same prompt and seed. The gain is the mean by which the '
    'first way is better than the other one, with its 95 % bootstrap interval over videos. A gain whose whole '
    'interval is above 0 speaks for the claim, one whose whole interval is below 0 against it, and any other leaves '
    f'it open. A claim **{HOLDS}** if all of its numbers speak for it, **{FAILS}** if one speaks against it, and is '
    f'otherwise **{OPEN}**. For claim 4, 0 is replaced by minus the margin.'
)


def write(folder: str | Path, refinement: str | Path, output: str | Path) -> None:
    """Writes the page.

    Args:
      folder: of the stored files: memories.json, anchor.json, long.json, baselines.json, hard-scenes.json. What is not
        there is not decided.
      refinement: results.json of st2v evaluate refine.
      output: file to write.

    Raises BadInput for a file that holds something else.
    """
    found = {}
    for claim in (MEMORIES, ANCHOR, STABILITY, BASELINES):
        for name in claim.files:
            if Path(folder, name).exists():
                found[name] = stored.read(Path(folder, name), METHODS, ('made', 'methods'))
    hard = Path(folder, 'hard-scenes.json')
    if hard.exists():
        found[hard.name] = stored.read(hard, HARD, ('made', 'kinds'))
    if Path(refinement).exists():
        found['refinement'] = stored.read(refinement, REFINE, ('made', 'generated'))
    places = [os.path.relpath(place, Path(output).parent) for place in (folder, Path(refinement).parent)]
    with stored.written(folder, f'{METHODS} or {HARD}'):
        text = page(found, *(Path(place).as_posix() for place in places))
    write_bytes(output, text.encode())
    print(f'page: {output}')


def page(found: Mapping[str, Any], folder: str = '.', refinement: str = '../refinement') -> str:
    """The page as Markdown, from the stored JSON by file; folder, refinement: of pictures, relative to the page."""
    parts = [
        (MEMORIES, *_methods(MEMORIES, found, folder)),
        (ANCHOR, *_methods(ANCHOR, found, folder)),
        (BLENDING, *_blending(found.get('refinement'), refinement)),
        (STABILITY, *_stability(found, folder)),
        (BASELINES, *_methods(BASELINES, found, folder)),
        (HARD_SCENES, *_hard(found.get('hard-scenes.json'), folder)),
    ]
    lines = [
        "# The paper's claims, measured",
        '',
        'This page is written by `st2v evaluate claims-report` from stored results; do not edit it.',
        '',
        RULE,
        '',
    ]
    summary = []
    for claim, rows, _ in parts:
        for compared in dict.fromkeys(row.compared for row in rows) or ('not measured yet',):
            some = [row for row in rows if row.compared == compared]
            says = Counter(row.says for row in some)
            pairs = min((row.found.count for row in some), default=0)
            counts = (says[each] for each in (FOR, NEITHER, AGAINST))
            summary.append([claim.title, compared, pairs, *counts, f'**{verdict(some)}**'])
    lines += table(['claim', 'compared', 'pairs', FOR, NEITHER, AGAINST, 'verdict'], summary)
    for claim, rows, more in parts:
        lines += [f'## {claim.title}', '', claim.text, '']
        if not rows:
            lines += ['This has not been measured yet.', '']
            continue
        lines += table(
            ['compared', 'number', 'gain', '95 % interval', 'pairs', 'speaks'],
            [[row.compared, row.title, shown(row.found.mean), interval(row.found), row.found.count, row.says]
             for row in rows],
        )  # fmt: skip
        lines += more
    return '\n'.join(lines)


def verdict(rows: Sequence[Row]) -> str:
    """What the rows of one comparison say together, by RULE."""
    says = {row.says for row in rows}
    return HOLDS if says == {FOR} else FAILS if AGAINST in says else OPEN


def judged(compared: str, title: str, found: Estimate, margin: float = 0.0) -> Row:
    """A row, with what its gain says; the claim allows a gain of minus the margin."""
    says = NEITHER
    if found.count:
        says = FOR if found.low > -margin else AGAINST if found.high < -margin else NEITHER
    return Row(compared, title, found, says)


def _methods(claim, found, folder):
    """Rows of the first method against each other one, and the lines that follow them."""
    rows, lines = [], []
    for file in claim.files:
        if file not in found:
            continue
        methods = found[file]['methods']
        first, *others = methods
        here = [
            number for number in claim.numbers if all(number.name in method['numbers'] for method in methods.values())
        ]
        of_file = f', {found[file]["made"]["frames"]:,} frames' if len(claim.files) > 1 else ''
        for other in others:
            for number in here:
                mine, theirs = (methods[name]['numbers'][number.name] for name in (first, other))
                rows.append(judged(f'{first} against {other}', number.title + of_file, number.gain(mine, theirs)))
        lines += [*_made(found[file]['made']), *_means(methods, here), *_pictures(folder, file)]
    return rows, lines


def _stability(found, folder):
    """Rows of the first method of the long videos at 240 and at their end."""
    rows, lines = [], []
    for file in STABILITY.files:
        if file not in found:
            continue
        methods, end = found[file]['methods'], found[file]['made']['frames']
        name = next(iter(methods))
        numbers = methods[name]['numbers']
        for number, margin in MARGINS.items():
            early, late = (numbers[number.name.format(place)] for place in (240, end))
            title = f'{number.title} ({number.better}), margin {margin:g}'
            rows.append(judged(f'{name}, frame {end:,} against 240', title, number.gain(late, early), margin))
        columns = [number._replace(name=number.name.format(place), title=f'{number.title} at {place:,}')
                   for number in MARGINS for place in (240, end)]  # fmt: skip
        lines += [*_made(found[file]['made']), *_means(methods, columns)]
    return rows, lines


def _blending(found, folder):
    """Rows of the variants of refinement, and the lines that follow them."""
    if found is None:
        return [], []
    kinds = found['generated']['kinds']
    rows = [
        judged(f'{NAMES[one]} against {NAMES[other]}', number.title, number.gain(kinds[one][number.name],
                                                                                  kinds[other][number.name]))
        for one, other in (('B+S', 'B'), ('paper', 'B'), ('paper', 'B+S'))
        if one in kinds and other in kinds
        for number in BLENDING.numbers
    ]  # fmt: skip
    methods = {NAMES[kind]: {'numbers': kinds[kind]} for kind in kinds}
    made = dict(found['made'])
    made['prompts'] = made['captions']
    lines = [*_made(made), *_means(methods, BLENDING.numbers)]
    for picture in found['generated']['pictures'][:1]:
        lines += [picture['text'], '', f'![{picture["title"]}]({folder}/{picture["file"]})', '']
    return rows, lines


def _hard(found, folder):
    """Rows of the first method against the others for each kind of scene, and the lines that follow them."""
    if found is None:
        return [], []
    first, *others = found['made']['methods']
    rows, lines = [], _made(found['made'])
    for kind, methods in found['kinds'].items():
        for other in others:
            rows += [
                judged(f'{first} against {other}', f'{number.title}: {KINDS[kind]}',
                       number.gain(methods[first][number.name], methods[other][number.name]))
                for number in HARD_SCENES.numbers
            ]  # fmt: skip
        columns = [Number(name, name, '') for name in methods[first]]
        titled = {{'truth': 'ground truth', 'others': 'another scene'}.get(name, name): {'numbers': numbers}
                  for name, numbers in methods.items()}  # fmt: skip
        lines += [f'Scenes in which {KINDS[kind]}:', '', *_means(titled, columns)]
    lines += [
        'The share of videos in which pixels of its colour are back, at least half as many; identity, and the shares '
        'in which the checker reads the same colour, shape and pattern as before, 0 where it is not back; the ratio of '
        'the radii, and the distance of the colours around the middle.',
        '',
        f'![hard scenes]({folder}/hard-scenes.jpg)',
        '',
    ]
    return rows, lines


def _made(made):
    """Lines that say how the videos were made."""
    return [
        f'{len(made["prompts"])} prompts, {made["frames"]:,} frames, made on {made["date"]} on {made["device"]} (jax '
        f'{made["jax"]}, {made["dtype"]}) by',
        '',
        f'    {made["command"]}',
        '',
    ]


def _means(methods, numbers):
    """A table of means with intervals, a row for each method."""
    cell = lambda found: f'{shown(found.mean)} ({interval(found)})' if found.count else '-'
    rows = [
        [name, *(cell(estimate(method['numbers'].get(number.name, []))) for number in numbers)]
        for name, method in methods.items()
    ]
    return table(['', *(number.title for number in numbers)], rows)


def _pictures(folder, file):
    """Lines with the pictures beside a file of `st2v evaluate methods`."""
    name = Path(file).stem
    return [
        f'![frames]({folder}/{name}-frames.jpg)',
        '',
        'The middle row of every frame, time downwards:',
        '',
        f'![X-T slices]({folder}/{name}-slices.jpg)',
        '',
    ]
