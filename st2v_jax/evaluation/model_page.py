"""The page about the small model, docs/small-model.md, from stored JSON."""

from collections.abc import Sequence
from typing import Any

from st2v_jax.evaluation.pages import head, percent, pictures, runs, table

STUDY = 'st2v evaluate generate'  # which writes the results that the page is made of, with these keys
NEEDS = ('made', 'pictures', 'places', 'checker', 'identity', 'videos')
TITLES = {'colour': 'colour', 'shape': 'shape', 'motion': 'motion', 'all': 'all three', 'pattern': 'pattern'}
KINDS = {'generated': 'generated', 'truth': 'ground truth', 'shuffled': "others' captions"}


def page(results: dict[str, Any], training: Sequence[dict[str, Any]] = (), folder: str = '.') -> str:
    """The page as Markdown.

    Args:
      results: results.json of st2v evaluate generate.
      training: summary.json of the training runs, in order.
      folder: of the pictures, relative to the page.
    """
    return '\n'.join(
        [
            *_head(results),
            *runs(training),
            '## Pictures',
            '',
            *pictures(results, folder),
            *_attributes(results),
            *_size(results),
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
        f'The seed of the world and of the noise is {made["seed"]}. The captions are unseen: their combinations of '
        'colour, shape and motion do not occur in training. The videos are the first of the seed, not a selection.',
    )


def _attributes(results):
    rows = []
    # Older results have no pattern and no size.
    asked = [name for name in TITLES if all(name in found['right']['truth'] for found in results['places'].values())]
    share = lambda value: '' if value is None else percent(value)
    for place, found in results['places'].items():
        for kind, title in KINDS.items():
            rows.append(
                [
                    f'frames {found["frames"][0]} to {found["frames"][1]} (around {place}): {title}',
                    *[share(found['right'][kind][name]) for name in asked],
                ]
            )
    checker = results['checker']
    own = ', '.join(f'{name} {percent(share)}' for name, share in checker['accuracy'].items())
    return [
        '## What the videos show',
        '',
        f'The share of {results["made"]["captions"]} videos in which a checker sees what the caption says, in windows '
        'of 16 frames. For comparison, the same checker judges the ground truth, which is rendered from the same '
        'scenes, and it judges the generated videos by the captions of the others, which gives the score of chance. '
        'With so few videos, a share of 50 % has a standard error of about '
        f'{100 * 0.5 / results["made"]["captions"] ** 0.5:.0f} points.'
        + (' The share of the pattern is over the captions that tell it.' if 'pattern' in asked else ''),
        '',
        *table(['window', *(TITLES[name] for name in asked)], rows),
        f'The checker is a small convolutional network (evaluation/checker.py). It was trained for {checker["steps"]} '
        'steps on rendered clips that were softened to look like generated ones. Its accuracy on new rendered clips: '
        f'{own}.',
        '',
    ]


def _size(results):
    if not all('size' in found for found in results['places'].values()):
        return []
    rows = []
    for place, found in results['places'].items():
        for kind in ('generated', 'truth'):
            size = found['size'][kind]
            to_truth = f'{found["size"]["to_truth"]:.2f}' if kind == 'generated' else ''
            rows.append([f'around {place}: {KINDS[kind]}', to_truth, f'{size["ratio"]:.2f}', percent(size['kept'])])
    return [
        '## Size',
        '',
        'The radius of the object as the checker reads it, divided by that in the ground truth, and by that of the '
        'same video in the first window: medians over the videos, and the share of videos where it stays within 15 %. '
        'Captions do not say how large an object is.',
        '',
        *table(['window', 'to the truth', 'to the beginning', 'kept'], rows),
    ]


def _identity(results):
    identity = results['identity']
    return [
        '## Identity',
        '',
        f'How alike the object looks around frame {identity["from"]} and around frame {identity["to"]}: the mean over '
        "colour, shape and pattern of the Bhattacharyya coefficient of the checker's posteriors. It is 1 if the "
        'posteriors are equal and 0 if they exclude each other.',
        '',
        *table(
            ['', 'identity'],
            [
                ['generated', f'{identity["generated"]:.3f}'],
                ['ground truth', f'{identity["truth"]:.3f}'],
                ['beginning of one generated video, end of another', f'{identity["others"]:.3f}'],
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
        'Flow is the mean optical flow (DIS) in pixels per frame. A value far below the ground truth means that the '
        'video freezes. The high-frequency change is the difference between the fine detail of a frame and that of the '
        'next one, pulled back along the flow, in grey values of 0 to 255. A value far above the ground truth, also '
        'relative to the detail, means that the video flickers (metrics/motion.py).',
        '',
        *table(['window', 'flow', 'high-frequency change', 'detail', 'change / detail'], rows),
        'Flow divided by that of the ground truth, median over the videos: '
        + ', '.join(f'{found["flow_ratio_median"]:.2f} around {place}' for place, found in results['places'].items())
        + '. Captions do not say how fast the camera moves, and brief ones do not say whether it moves.',
        '',
    ]


def _nearest(results):
    nearest = results.get('nearest')
    if not nearest:
        return []
    return [
        '## Nearest training clips',
        '',
        'For the first 16 frames of each video, the nearest training clip was looked for in '
        f'{nearest["scenes"]} training scenes, at {len(nearest["starts"])} times each. Clips are compared by the root '
        'mean square difference of four frames, averaged down to 16x16 pixels, from 0 to 255. Its median is '
        f'{nearest["generated"]:.1f} for the generated frames and {nearest["truth"]:.1f} for the ground truth of the '
        'same unseen scenes. It would be much smaller for a model that repeats its training clips.',
        '',
    ]


def _captions(results):
    places = list(results['places'])
    mark = lambda said, seen: ', '.join(s if w in (s, None) else f'**{s}**' for w, s in zip(said, seen))
    rows = [
        [video['caption'], *[mark(video['said'], video['seen'][place]) for place in places]]
        for video in results['videos']
    ]
    return [
        '## Every caption',
        '',
        'What the checker sees in each window; differences from the caption are in bold.',
        '',
        *table(['caption', *[f'around {place}' for place in places]], rows),
    ]
