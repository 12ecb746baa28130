"""First chunks that begin with a picture, without training: several ways, next to text alone and to the true clip.

    python benchmarks/picture_start.py --steps 8 --work picture --json picture.json --sheet picture.png

The picture is the first frame of a rendered clip of a scene that does not occur in training, the prompt its caption.
What is made is kept in --work: a run that was stopped goes on when it is repeated.
"""

import argparse
import json
import os
import sys

import jax
import numpy as np

from st2v_jax import load
from st2v_jax.diffusion import sampling
from st2v_jax.evaluation import survey
from st2v_jax.evaluation.sheets import contact_sheet
from st2v_jax.streaming import own_start, stream
from st2v_jax.streaming.generate import encode, generate, text_ids
from st2v_jax.streaming.prompt_schedule import Text
from st2v_jax.video_io import to_floats, to_uint8

WAYS = {
    'text alone': {},
    'held': {'held': True},
    'noised': {'share': 0.85},
    'held and noised': {'held': True, 'share': 0.7},
    'remembered': None,
}


def first_chunk(model, settings, told, picture, seeds, *, held=False, share=1.0):
    """Frames uint8 [b, n, H, W, 3] of first chunks.

    Args:
      model, settings, told, seeds: of b videos.
      picture: latents [b, h, w, c].
      held: replacement: before each step, the first frame is the picture, noised to the level of the step.
      share: of the steps that are taken, from the picture in all frames, noised to the level where they begin (SDEdit).
    """
    state, run, params = stream.start(stream.video_keys(seeds)), stream.programs(model.system, settings), model.params
    levels = stream.levels_of(model.system, settings, state)
    noise, condition = run.begin(params, told, state)
    count = len(levels.t) - 1
    begin = round((1 - share) * count)
    at = lambda i: (levels.alpha[i], levels.sigma[i])
    noised = lambda i, x, noise: at(i)[0] * x + at(i)[1] * noise
    x, inputs = noise if not begin else noised(begin, picture[:, None], noise), sampling.steps(levels)
    trajectory = sampling.begin(x, levels)
    for i in range(begin, count):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], inputs)
        if held:
            trajectory = trajectory._replace(x=trajectory.x.at[:, 0].set(noised(i, picture, noise[:, 0])))
        trajectory = run.step(params, condition, state, trajectory, one)
    x = trajectory.x.at[:, 0].set(picture) if held else trajectory.x
    return to_uint8(run.decode(params, x))


def continued(model, settings, prompts, pictures, seeds):
    """Frames uint8 [b, n, H, W, 3]: the pictures, and the chunk that follows from a memory that is full of them."""
    contract = model.config.contract
    state = own_start.after_frames(model, np.repeat(pictures[:, None], contract.memory, 1), seed=seeds)
    pieces = generate(model, prompts, contract.stride, settings=settings, state=state)
    return np.concatenate([pictures[:, None], *map(to_uint8, pieces)], 1)


def made_of(model, settings, prompts, pictures, seeds):
    """{way: frames uint8 [b, n, H, W, 3]} of b prompts and pictures uint8 [b, H, W, 3]."""
    ids = {prompt: model.tokenizer.ids([prompt])[0] for prompt in prompts}
    told = encode(model, text_ids(ids, [Text(prompt) for prompt in prompts]), model.tokenizer.ids([''] * len(prompts)))
    mean, _ = model.system.vae(model.params['vae'], to_floats(pictures), method='encode')
    latents = mean * model.config.scale_factor
    return {
        way: continued(model, settings, prompts, pictures, seeds)
        if how is None
        else first_chunk(model, settings, told, latents, seeds, **how)
        for way, how in WAYS.items()
    }


def measured(videos, truth):
    """What is measured of videos uint8 [n, f, H, W, 3] whose picture is the first frame of `truth`, means over them.

    first: mean absolute difference of the first frame to the picture, in levels of 255.
    scene: the same of the median over all frames, in which what moves is gone, to the median of the true clip.
    colours: share of the histogram of colours (8 levels each) that later frames have in common with the picture.
    motion: mean absolute difference of neighbouring frames, over that of the true clip.
    border: that of the first two frames, over the median of later ones.
    """
    videos, truth = videos.astype(np.float32), truth.astype(np.float32)
    steps, true_steps = (np.abs(np.diff(clip, axis=1)).mean((2, 3, 4)) for clip in (videos, truth))
    common = [[_common(frame, clip[0]) for frame in video[1:]] for video, clip in zip(videos, truth, strict=True)]
    return {
        'first': float(np.abs(videos[:, 0] - truth[:, 0]).mean()),
        'scene': float(np.abs(np.median(videos, 1) - np.median(truth, 1)).mean()),
        'colours': float(np.mean(common)),
        'motion': float((steps.mean(1) / true_steps.mean(1)).mean()),
        'border': float((steps[:, 0] / np.median(steps[:, 1:], 1)).mean()),
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
    settings, made = model.settings(steps=arguments.steps), []
    os.makedirs(arguments.work, exist_ok=True)
    for begin in range(0, arguments.videos, arguments.batch):
        some = slice(begin, min(begin + arguments.batch, arguments.videos))
        file = f'{arguments.work}/{some.start}-{some.stop}.npz'
        if not os.path.exists(file):
            videos = made_of(model, settings, prompts[some], truth[some, 0], [*range(some.start, some.stop)])
            np.savez(f'{file}.part.npz', **videos)
            os.replace(f'{file}.part.npz', file)
        made.append(np.load(file))
        print(f'{some.stop} of {arguments.videos} scenes', file=sys.stderr, flush=True)
    videos = {'true clip': truth} | {way: np.concatenate([part[way][:, :count] for part in made]) for way in WAYS}
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
