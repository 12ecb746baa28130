"""How far videos follow either prompt when the prompt changes on the way: read by the checker, with contact sheets.

    st2v evaluate train-checker --checker runs/checker.npz
    python benchmarks/prompt_change.py --checker runs/checker.npz --json change.json --sheet change.png

Both prompts are captions of scenes that do not occur in training; the second of a video is the first of the next one.
"""

import argparse
import json
import sys

import numpy as np

from st2v_jax import PromptSchedule, load
from st2v_jax.evaluation import checker, survey
from st2v_jax.evaluation.sheets import contact_sheet
from st2v_jax.streaming.generate import first_frames, stream
from st2v_jax.video_io import to_floats, to_uint8


def main(argv=None) -> int:
    """Makes the videos, measures them and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checker', required=True, help='npz file of st2v evaluate train-checker')
    parser.add_argument('--weights', help='the model (default: the small model)')
    parser.add_argument('--videos', type=int, default=32)
    parser.add_argument('--frames', type=int, default=96)
    parser.add_argument('--at', type=int, default=48, help='the frame at which the prompt changes')
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--batch', type=int, default=4, help='videos made together')
    parser.add_argument('--seed', type=int, default=2_000_003, help='of the scenes')
    parser.add_argument('--json', help='file to write')
    parser.add_argument('--sheet', help='PNG file to write: the first four videos')
    arguments = parser.parse_args(argv)

    model, (params, _) = load(arguments.weights), checker.load(arguments.checker)
    _, scenes = survey.unseen_scenes(arguments.seed, arguments.videos)
    first = survey.captions(scenes)
    second = [*first[1:], first[0]]
    prompts = [PromptSchedule(one, ((arguments.at, other),)) for one, other in zip(first, second, strict=True)]
    settings, videos = model.settings(steps=arguments.steps, first_steps=arguments.steps), []
    for begin in range(0, len(prompts), arguments.batch):
        some = prompts[begin : begin + arguments.batch]
        made = stream(model, some, seed=[*range(begin, begin + len(some))], settings=settings)
        frames = first_frames((frames for frames, _ in made), arguments.frames)
        videos.append(np.concatenate([to_uint8(piece) for piece in frames], 1))
        print(f'{begin + len(some)} of {len(prompts)} videos', file=sys.stderr, flush=True)
    videos = np.concatenate(videos)

    labels = survey.said(scenes)
    others = {name: np.roll(label, -1) for name, label in labels.items()}
    starts = {'before': arguments.at - checker.FRAMES, 'after': arguments.at, 'end': arguments.frames - checker.FRAMES}
    found = {'options': vars(arguments) | {'json': None, 'sheet': None}}
    for when, start in starts.items():
        believed = checker.posteriors(params, to_floats(videos[:, start : start + checker.FRAMES]))
        found[when] = {'first prompt': survey.right(believed, labels), 'second prompt': survey.right(believed, others)}
        for prompt, shares in found[when].items():
            listed = ', '.join(f'{name} {100 * share:.0f} %' for name, share in shares.items() if share is not None)
            print(f'frames {start} to {start + checker.FRAMES - 1}, {prompt}: {listed}')
    if arguments.json:
        with open(arguments.json, 'w') as file:
            json.dump(found, file, indent=1)
    if arguments.sheet:
        numbers = np.linspace(1, arguments.frames, 10).round().astype(int).tolist()
        rows = [f'{one}; from frame {arguments.at} on: {other}' for one, other in zip(first, second, strict=True)]
        contact_sheet(videos[:4], numbers, rows[:4]).save(arguments.sheet)
    return 0


if __name__ == '__main__':
    sys.exit(main())
