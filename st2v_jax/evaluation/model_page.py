"""The page about the small model: a pure function of stored JSON, so that every figure on it can be traced."""

from st2v_jax.evaluation.pages import head, percent, pictures, runs, table

TITLES = {'colour': 'colour', 'shape': 'shape', 'motion': 'motion', 'all': 'all three'}
KINDS = {'generated': 'generated', 'truth': 'ground truth', 'shuffled': "others' captions"}


def page(results, training=(), folder='.'):
    """Markdown of `results` (st2v evaluate generate) and of training summaries (summary.json of st2v train), in order.

    folder: where the pictures are, seen from the page.
    """
    return '\n'.join(
        [
            *_head(results),
            *runs(training),
            '## Pictures',
            '',
            *pictures(results, folder),
            *_attributes(results),
            *_identity(results),
            *_motion(results),
            *_nearest(results),
            *_captions(results),
        ]
    )


def _head(results):
    made = results['made']
    videos = f'{made["captions"]} videos of {made["frames"]} frames at {made["size"]}x{made["size"]}, made'
    return head(
        'The small model',
        'report',
        made,
        videos,
        f'World seed {made["seed"]}, sampling seed {made["seed"]}. The captions are unseen: no training scene has '
        'their combination of colour, shape and motion. Nothing was chosen; the videos are the first of their seed.',
    )


def _attributes(results):
    rows = []
    for place, found in results['places'].items():
        for kind, name in KINDS.items():
            rows.append(
                [
                    f'frames {found["frames"][0]} to {found["frames"][1]} (around {place}): {name}',
                    *[percent(found['right'][kind][asked]) for asked in TITLES],
                ]
            )
    checker = results['checker']
    own = ', '.join(f'{name} {percent(share)}' for name, share in checker['accuracy'].items())
    return [
        '## What the videos show',
        '',
        f'Share of {results["made"]["captions"]} videos in which a checker sees what the caption says, in windows of '
        '16 frames; beside it the same checker on the renderings of the same scenes, and on the generated videos '
        'judged by every other caption, which is what chance would score. With so few videos a share of 50 % is '
        f'uncertain by about {100 * 0.5 / results["made"]["captions"] ** 0.5:.0f} points (one standard error).',
        '',
        *table(['window', *TITLES.values()], rows),
        f'The checker is a small convolutional network (evaluation/checker.py), trained for {checker["steps"]} steps '
        f'on rendered clips softened as generated frames are. On fresh rendered clips it is right in: {own}.',
        '',
    ]


def _identity(results):
    identity = results['identity']
    return [
        '## Identity',
        '',
        f'How alike the object looks around frame {identity["to"]} and around frame {identity["from"]}: the mean over '
        "colour, shape and pattern of the Bhattacharyya coefficient of the checker's posteriors (1: it believes the "
        'same of both, 0: its beliefs exclude each other).',
        '',
        *table(
            ['', 'identity'],
            [
                ['generated', f'{identity["generated"]:.3f}'],
                ['ground truth', f'{identity["truth"]:.3f}'],
                ['with the end of other generated videos', f'{identity["others"]:.3f}'],
            ],
        ),
    ]


def _motion(results):
    rows = []
    for place, found in results['places'].items():
        for kind in ('generated', 'truth'):
            moved = found['motion'][kind]
            rows.append(
                [
                    f'around {place}: {KINDS[kind]}',
                    f'{moved["flow"]:.2f}',
                    f'{moved["change"]:.2f}',
                    f'{moved["detail"]:.2f}',
                    f'{moved["change"] / max(moved["detail"], 1e-9):.2f}',
                ]
            )
    return [
        '## Motion, freezing, flicker',
        '',
        'Mean optical flow (DIS) in pixels a frame: far below ground truth means freezing. High-frequency change: by '
        'how much the fine detail of a frame differs from that of the next, pulled back along the flow, in grey values '
        'of 255; far above ground truth, also relative to the detail there is, means flicker (metrics/motion.py).',
        '',
        *table(['window', 'flow', 'high-frequency change', 'detail', 'change / detail'], rows),
        "Median over videos of the ratio of flow to that of the same scene's rendering: "
        + ', '.join(f'{found["flow_ratio_median"]:.2f} around {place}' for place, found in results['places'].items())
        + '. Captions do not say how fast the camera moves, and brief ones not whether it does.',
        '',
    ]


def _nearest(results):
    nearest = results.get('nearest')
    if not nearest:
        return []
    return [
        '## Nearest training clips',
        '',
        f'Root mean square difference (0 to 255, four frames averaged down to 16x16) to the nearest of '
        f'{nearest["scenes"]} training scenes at {len(nearest["starts"])} times each: median '
        f'{nearest["generated"]:.1f} for the first 16 generated frames, {nearest["truth"]:.1f} for the renderings of '
        'the same unseen scenes. A model that repeated its training clips would come out far below the latter.',
        '',
    ]


def _captions(results):
    places = list(results['places'])
    mark = lambda said, seen: ', '.join(s if s == w else f'**{s}**' for w, s in zip(said, seen))
    rows = [
        [video['caption'], *[mark(video['said'], video['seen'][place]) for place in places]]
        for video in results['videos']
    ]
    return [
        '## Every caption',
        '',
        'What the checker saw; what differs from the caption is bold.',
        '',
        *table(['caption', *[f'around {place}' for place in places]], rows),
    ]
