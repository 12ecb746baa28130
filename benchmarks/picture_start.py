"""First chunks that begin with a picture, without training: several ways, next to text alone and to the true clip.

    python benchmarks/picture_start.py --steps 8 --work picture --json picture.json --sheet picture.png

The picture is the first frame of a rendered clip of a scene that does not occur in training, the prompt its caption.
What is made is kept in --work: a run that was stopped goes on when it is repeated.
"""

import argparse
import json
import os
import sys

import numpy as np

from st2v_jax import load
from st2v_jax.evaluation import survey
from st2v_jax.evaluation.sheets import contact_sheet
from st2v_jax.streaming import own_start
from st2v_jax.streaming.generate import generate
from st2v_jax.video_io import to_uint8

WAYS = ('text alone', 'let go', 'remembered')


def made_of(way, model, settings, prompts, pictures, seeds):
    """Frames uint8 [b, n, H, W, 3] of b prompts and pictures uint8 [b, H, W, 3].

    'let go' is what `own_start.with_picture` does; 'remembered' goes on from a memory that is full of the picture.
    """
    contract = model.config.contract
    count, state = contract.first_frames, None
    if way == 'let go':
        state = own_start.with_picture(model, pictures, seed=seeds)
    if way == 'remembered':
        count = contract.stride
        state = own_start.after_frames(model, np.repeat(pictures[:, None], contract.memory, 1), seed=seeds)
    pieces = [to_uint8(piece) for piece in generate(model, prompts, count, settings=settings, state=state, seed=seeds)]
    return np.concatenate([pictures[:, None], *pieces] if way == 'remembered' else pieces, 1)


def measured(videos, truth):
    """What is measured of videos uint8 [n, f, H, W, 3] whose picture is the first frame of `truth`, means over them.

    first: mean absolute difference of the first frame to the picture, in levels of 255.
    scene: the same of the median over all frames, in which what moves is gone, to the median of the true clip.
    colours: share of the histogram of colours (8 levels each) that later frames have in common with the picture.
    motion: mean absolute difference of neighbouring frames, over that of the true clip.
    border: that of the first two frames, over the same mean of the true clip.
    """
    videos, truth = videos.astype(np.float32), truth.astype(np.float32)
    steps, true_steps = (np.abs(np.diff(clip, axis=1)).mean((2, 3, 4)) for clip in (videos, truth))
    common = [[_common(frame, clip[0]) for frame in video[1:]] for video, clip in zip(videos, truth, strict=True)]
    return {
        'first': float(np.abs(videos[:, 0] - truth[:, 0]).mean()),
        'scene': float(np.abs(np.median(videos, 1) - np.median(truth, 1)).mean()),
        'colours': float(np.mean(common)),
        'motion': float((steps.mean(1) / true_steps.mean(1)).mean()),
        'border': float((steps[:, 0] / true_steps.mean(1)).mean()),
    }


def _common(one, other):
    one, other = (np.bincount((frame // 32 @ [64, 8, 1]).astype(int).ravel(), minlength=512) for frame in (one, other))
    return np.minimum(one, other).sum() / one.sum()


def main(argv=None) -> int:
    """Makes the chunks, measures them and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', help='the model (default: the small model)')
    parser.add_argument('--videos', type=int, default=32)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--batch', type=int, default=4, help='videos made together')
    parser.add_argument('--seed', type=int, default=2_000_003, help='of the scenes')
    parser.add_argument('--work', required=True, metavar='FOLDER', help='keeps what is made')
    parser.add_argument('--json', help='file to write')
    parser.add_argument('--sheet', help='PNG file to write: the first video of each way')
    arguments = parser.parse_args(argv)

    model = load(arguments.weights)
    height, width = model.config.frame_size
    count = 1 + model.config.contract.stride
    _, scenes = survey.unseen_scenes(arguments.seed, arguments.videos)
    prompts, truth = survey.captions(scenes), survey.rendering(scenes, range(count), (height, width))
    settings, made = model.settings(steps=arguments.steps), {way: [] for way in WAYS}
    os.makedirs(arguments.work, exist_ok=True)
    for begin in range(0, arguments.videos, arguments.batch):
        some = slice(begin, min(begin + arguments.batch, arguments.videos))
        for way in WAYS:
            file = f'{arguments.work}/{way}-{some.start}-{some.stop}.npy'
            if not os.path.exists(file):
                seeds = [*range(some.start, some.stop)]
                np.save(f'{file}.part.npy', made_of(way, model, settings, prompts[some], truth[some, 0], seeds))
                os.replace(f'{file}.part.npy', file)
            made[way].append(np.load(file)[:, :count])
        print(f'{some.stop} of {arguments.videos} scenes', file=sys.stderr, flush=True)
    videos = {'true clip': truth} | {way: np.concatenate(pieces) for way, pieces in made.items()}
    found = {'options': {name: getattr(arguments, name) for name in ('videos', 'steps', 'seed')}}
    for way, video in videos.items():
        found[way] = measured(video, truth)
        print(f'{way}: ' + ', '.join(f'{name} {value:.3g}' for name, value in found[way].items()))
    if arguments.json:
        with open(arguments.json, 'w') as file:
            json.dump(found, file, indent=1)
    if arguments.sheet:
        numbers = [*range(1, count + 1)]
        rows = [(f'{way}: {prompts[i]}', video[i]) for i in range(min(2, len(truth))) for way, video in videos.items()]
        contact_sheet([row for _, row in rows], numbers, [label for label, _ in rows]).save(arguments.sheet)
    return 0


if __name__ == '__main__':
    sys.exit(main())
