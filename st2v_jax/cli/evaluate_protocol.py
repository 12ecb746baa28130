"""`st2v evaluate protocol`: a row of the paper's Table 1 from a folder of weights.

The paper makes a video of 240 frames for each of 50 prompts and measures MAWE, SCuts and the CLIP score. Frames are
measured at 720x720. A video that is complete is not made again, and one that is measured is not measured again.
"""

import contextlib
from argparse import Namespace
from pathlib import Path

from st2v_jax import video_io
from st2v_jax.cli import evaluate_videos, options, sample
from st2v_jax.cli.outputs import claimed
from st2v_jax.cli.run import Run
from st2v_jax.errors import InputError
from st2v_jax.storage.places import check_folder
from st2v_jax.streaming.prompt_schedule import PromptSchedule

METRICS = 'mawe,scuts,clip'
SETTINGS = ('weights', 'seed', 'num_frames', 'steps', 'profile', 'dtype')  # options of sample, under the same names


def work(arguments: Namespace, run: Run) -> None:
    """Makes the videos that are missing, and measures all."""
    run.written = 'what is finished stays'
    instruments = evaluate_videos.chosen(arguments)
    prompts = sample.read_prompts(arguments.prompts_file)
    check_folder(arguments.output)
    folder = Path(arguments.output, 'videos')
    folder.mkdir(parents=True, exist_ok=True)
    outputs = (str(folder / f'{number:03d}.mp4') for number in range(len(prompts)))
    jobs = [sample.Job(PromptSchedule(prompt), output) for prompt, output in zip(prompts, outputs, strict=True)]
    ours = jobs if arguments.shard is None else jobs[arguments.shard[0] - 1 :: arguments.shard[1]]
    _make(ours, arguments, run)
    from st2v_jax.evaluation.given_videos import GivenVideo

    videos = [GivenVideo(Path(job.output), Path(job.output).name, job.prompts.prompt, arguments.seed) for job in jobs]
    evaluate_videos.measure_all(arguments.output, videos, instruments, shard=arguments.shard, quiet=arguments.quiet)


def _make(jobs, arguments, run):
    """Makes the videos that are not complete, as `st2v sample` does."""
    parser = sample.parser('st2v sample')
    wanted = parser.parse_args(['--prompts-file', arguments.prompts_file])
    for name in SETTINGS:
        setattr(wanted, name, getattr(arguments, name))
    wanted.enhance, wanted.quiet = arguments.enhance, arguments.quiet
    missing = [job for job in jobs if not complete(job, wanted)]
    if not arguments.quiet:
        print(f'{len(jobs) - len(missing)} of {len(jobs)} videos are made', flush=True)
    if not missing:
        return
    inner = Run(parser, run.again)
    try:
        with contextlib.ExitStack() as locks:
            for job in missing:
                locks.enter_context(claimed(job.output))
            sample.make_all(missing, wanted, inner)
    finally:
        run.lower, run.draft, run.target = inner.lower, inner.draft, inner.target


def complete(job: sample.Job, wanted: Namespace) -> bool:
    """Whether the video of a job is there with all its frames, made with the wanted options of `st2v sample`."""
    try:
        stored = video_io.read_metadata(job.output)
        frames = video_io.VideoReader(job.output).frames
    except InputError:
        return False
    settings = stored.get('settings') or {}
    same = {
        'prompt': job.prompts.prompt,
        'at': None,
        'weights': wanted.weights,
        'seed': wanted.seed,
        'num_frames': wanted.num_frames,
    }
    return (
        frames == wanted.num_frames
        and all(stored.get(name) == value for name, value in same.items())
        and settings.get('steps') == wanted.steps
        and wanted.profile in (None, settings.get('profile'))
        and wanted.enhance == ('refinement' in stored)
    )


def add_options(add) -> None:
    """Adds the options of the study."""
    number = {'metavar': 'N'}
    add('--weights', metavar='FOLDER', help='the model (default: the small model)')
    evaluate_videos.add_needs(add)
    add('--output', type=Path, required=True, metavar='FOLDER', help='folder for the videos and the results')
    add('--prompts-file', default='paper', metavar='FILE', help='a file with one prompt per line')
    add('--num-frames', type=options.at_least_1, default=240, **number, help='frames of each video')
    add('--steps', type=options.at_least_1, default=50, **number, help='denoising steps of each chunk')
    add('--seed', type=options.seed, default=0, **number, help='random seed of the videos')
    add('--profile', choices=('paper', 'release'), help='sampling rules (default: set by the model)')
    add('--dtype', choices=options.DTYPES, help='of the networks (default: what suits the device)')
    add('--enhance', action='store_true', help='measure the enhanced videos')
    add('--metrics', default=METRICS, metavar='NAMES', help=f'some of {",".join(evaluate_videos.METRICS)}')
    add('--size', type=options.frame_size, default=(720, 720), metavar='HxW', help='of the frames that are measured')
    add('--shard', type=options.shard, metavar='I/N', help='make and measure the I-th of N parts only')
    add('--quiet', action='store_true', help='print warnings and errors only')
