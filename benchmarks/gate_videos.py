"""What the gate does to generated videos: the same prompts and seeds with `--gate off` and with `--gate reroll`.

    st2v evaluate train-checker --checker runs/checker.npz
    python benchmarks/gate_videos.py --checker runs/checker.npz --out runs/gate --json docs/evaluation/gate-videos.json

With its defaults that is 64 videos of 240 frames. Each video is a session in --out, whose branch `gated` shares with
`main` what it can, so a run that was stopped goes on. Prompts are captions of scenes that do not occur in training.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax import PromptSchedule, load
from st2v_jax.evaluation import checker, record, survey
from st2v_jax.metrics.colour import colour_steps
from st2v_jax.metrics.stagnation import block_changes, stagnation
from st2v_jax.metrics.steadiness import border_ratio, flow_lengths, frame_changes
from st2v_jax.sessions.about import exists, writing
from st2v_jax.sessions.branches import MAIN, Recipe
from st2v_jax.sessions.session import Session
from st2v_jax.streaming import gate
from st2v_jax.streaming.generate import Model
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.video_io import to_floats, to_uint8

GATED = 'gated'
KINDS = {'off': MAIN, 'reroll': GATED}
MEANS = ('border, change', 'border, colour', 'still', 'flow')


def make(
    folder: Path, model: Model, settings: SampleSettings, prompt: str, seed: int, frames: int, tries: int
) -> Session:
    """The session of one video with both branches complete."""
    with writing(folder):
        session = (Session if exists(folder) else Session.create)(folder, model, tell=lambda line: None)
        session.start(Recipe(0, PromptSchedule(prompt), '', seed, settings), num_frames=frames)
        for _ in session.extend():
            pass
        session.fork(MAIN, 0, name=GATED, gate=gate.Gate('reroll', tries))
        session.append(GATED, num_frames=frames)
        for _ in session.extend(GATED):
            pass
    return session


def measured(session: Session, name: str, frames: np.ndarray) -> dict[str, Any]:
    """What a branch took, and what there is in its frames uint8 [f, h, w, 3]; borders over changes elsewhere."""
    branch = session.branch(name)
    contract = branch.counted(session.model.config.contract)
    seconds = {entry['chunk']: entry['seconds'] for entry in session.journal() if 'chunk' in entry}
    drawn = {entry['number']: entry for entry in session.journal() if 'draws' in entry and entry['branch'] == name}
    starts = [contract.frames_after(number) for number in range(1, len(branch.chunks))]
    memory, stride = contract.memory, contract.stride
    scored = [gate.scores(frames[start : start + stride], frames[start - memory : start]) for start in starts]
    borders = np.array(starts) - 1
    return {
        'chunks': len(branch.chunks),
        'draws': branch.draws,
        'drawn again': sum(len(entry['draws']) - 1 for entry in drawn.values()),
        'seconds': float(sum(seconds[id] for id in branch.chunks)),
        'faults': [gate.faults(found) for found in scored],
        'scores': [{key: round(value, 3) for key, value in found.items()} for found in scored],
        'border, change': border_ratio(frame_changes(frames), borders),
        'border, colour': border_ratio(colour_steps(frames), borders),
        'still': stagnation(block_changes(frames))['share'],
        'flow': float(flow_lengths(frames).mean()),
    }


def read(params: dict[str, Any], videos: np.ndarray, labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the checker reads in videos uint8 [n, f, h, w, 3] next to their captions, around some frames."""
    windows = survey.windows_of(videos.shape[1])
    believed = {place: checker.posteriors(params, to_floats(videos[:, window])) for place, window in windows.items()}
    first, last = min(windows), max(windows)
    return {
        'identity': float(np.mean(checker.identity(believed[first], believed[last]))),
        **{f'around {place}': survey.right(seen, labels) for place, seen in believed.items()},
    }


def told(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of each kind over all videos."""
    figures = {}
    for kind in KINDS:
        videos = [video[kind] for video in found]
        faults = [names for video in videos for names in video['faults']]
        figures[kind] = {
            'chunks after the first': len(faults),
            'of them with a fault': sum(map(bool, faults)),
            'by': {name: sum(name in names for names in faults) for name in gate.LIMITS},
            **{name: float(np.mean([video[name] for video in videos])) for name in MEANS},
        }
    again = [video['reroll'] for video in found]
    figures['reroll'] |= {
        'chunks of which another draw is kept': sum(draw > 0 for video in again for draw in video['draws']),
        'draws that are not the first': sum(video['drawn again'] for video in again),
    }
    return figures


def main(argv=None) -> int:
    """Makes the videos, measures them, and writes and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, type=Path, help='folder of the sessions; goes on with those in it')
    parser.add_argument('--checker', required=True, help='npz file of st2v evaluate train-checker')
    parser.add_argument('--weights', help='the model (default: the small model)')
    parser.add_argument('--videos', type=int, default=64)
    parser.add_argument('--frames', type=int, default=240)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--tries', type=int, default=gate.Gate.tries)
    parser.add_argument('--seed', type=int, default=2_000_003, help='of the scenes')
    parser.add_argument('--json', type=Path, help='file to write')
    arguments = parser.parse_args(argv)

    (params, _), model = checker.load(arguments.checker), load(arguments.weights)
    settings = model.settings(steps=arguments.steps)
    _, scenes = survey.unseen_scenes(arguments.seed, arguments.videos)
    found, videos = [], {kind: [] for kind in KINDS}
    for number, prompt in enumerate(survey.captions(scenes)):
        folder = arguments.out / f'{number:03d}'
        session = make(folder, model, settings, prompt, number, arguments.frames, arguments.tries)
        row = {'prompt': prompt}
        for kind, name in KINDS.items():
            videos[kind].append(np.concatenate([to_uint8(piece) for piece in session.frames(name)]))
            row[kind] = measured(session, name, videos[kind][-1])
        found.append(row)
        print(f'{number + 1} of {arguments.videos} videos, {row["reroll"]["drawn again"]} draws more', flush=True)
    options = {name: value for name, value in vars(arguments).items() if name in ('videos', 'frames', 'steps', 'tries')}
    made = record.made('python benchmarks/gate_videos.py') | options | {'limits': gate.LIMITS}
    figures, labels = told(found), survey.said(scenes)
    for kind in KINDS:
        figures[kind] |= read(params, np.stack(videos[kind]), labels)
    if arguments.json:
        record.write(arguments.json, {'made': made, 'figures': figures, 'videos': found})
    for kind, of_kind in figures.items():
        for name, value in of_kind.items():
            print(f'{kind}, {name}: {value}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
