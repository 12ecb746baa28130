"""`st2v prepare-data --videos FOLDER --output FOLDER`: videos with captions become clips that train reads."""

import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from st2v_jax.cli import options
from st2v_jax.cli.progress import Progress
from st2v_jax.cli.run import require
from st2v_jax.errors import Failed

DESCRIPTION = """\
Cuts videos at scene changes, takes 3 frames a second, crops them to a square, drops what stands still, and writes
samples of as many frames as a stage needs: ArrayRecord shards, to be trained on with --config.data.source=FOLDER.
"""
EXAMPLES = """\
examples:
  {run} --videos videos/ --output clips/
  {run} --videos videos/ --output clips-apm/ --frames 32 --workers 8
  {run} --videos videos/ --output clips/ --encode runs/video_ldm/weights
The captions file has a line {{"file": "boat.mp4", "caption": "a boat on a lake"}} for each video of the folder. A video
that cannot be read or gives no sample is left out and listed with the reason in skipped.jsonl. The same command again
goes on with a run that was stopped or killed; only a folder with an index.json is complete.
"""


def work(arguments, run):
    """Checks, prepares, reports."""
    require('train', 'scenedetect', 'array_record')
    from st2v_jax.data import prepare

    settings, entries = _input(arguments, prepare)
    encoder = _encoder(arguments)
    run.target, run.written = arguments.output, 'what is finished stays'
    skipped = Path(arguments.output, 'skipped.jsonl')
    try:
        with Progress(Path(arguments.videos).name, quiet=arguments.quiet) as progress, _processes(arguments) as apply:
            progress.stage('preparing', len(entries), 'videos')
            made = prepare.prepare(
                arguments.videos, entries, arguments.output, settings, encoder=encoder, apply=apply, done=progress.to
            )
    except BrokenProcessPool as error:
        raise Failed(
            f'a process died, of a video or for want of memory; --workers 1 shows where; again: {run.again}'
        ) from error
    if made['skipped'] and not arguments.quiet:
        print(f'left out {made["skipped"]} of {made["videos"]} videos: {skipped}')
    if not made['samples']:
        raise Failed(f'no video gave a sample; {skipped} says why')
    if not arguments.quiet:
        print(
            f'{made["samples"]} samples of {settings.frames} frames in {arguments.output}; '
            f'{made["still"]} that stood still were dropped'
        )


def _input(arguments, prepare):
    """(Settings, entries of the captions file); ValueError or OSError where they are no good."""
    if not os.path.isdir(arguments.videos):
        raise ValueError(f'there is no folder {arguments.videos}')
    if os.path.exists(arguments.output) and not os.path.isdir(arguments.output):
        raise ValueError(f'{arguments.output} is a file, not a folder')
    names = ('frames', 'fps', 'size', 'min_motion', 'videos_per_shard')
    settings = prepare.Settings(**{name: getattr(arguments, name) for name in names})
    return settings, prepare.read_captions(arguments.captions or Path(arguments.videos, 'captions.jsonl'))


def _encoder(arguments):
    """The Encoder of --encode, or None; ValueError where those weights are no good."""
    if arguments.encode is None:
        return None
    from st2v_jax.data import encoding  # jax, which takes a second to import

    return encoding.load(arguments.encode, arguments.size)


@contextlib.contextmanager
def _processes(arguments):
    """A map over that many processes, or over this one."""
    if arguments.workers == 1:
        yield map
        return
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context('spawn')) as pool:
        try:
            yield pool.map
        finally:
            pool.shutdown(cancel_futures=True)


def parser(prog):
    parser = options.Parser(prog, DESCRIPTION, epilog=EXAMPLES.format(run=prog))
    add = parser.add_argument
    add('--videos', required=True, metavar='FOLDER', help='where the videos are')
    add('--captions', metavar='FILE', help='a line of JSON for each video (default: captions.jsonl in that folder)')
    add('--output', required=True, metavar='FOLDER', help='where the clips go')
    add(
        '--frames',
        type=options.at_least_1,
        default=16,
        metavar='N',
        help='frames of a sample: 16, or 32 for the stage apm (16)',
    )
    add('--fps', type=options.rate, default=3.0, metavar='X', help='frames per second of a sample (3)')
    add(
        '--size',
        type=options.frame_size,
        default=options.frame_size('256'),
        metavar='HxW',
        help='height and width of its frames; N for a square (256)',
    )
    add(
        '--min-motion',
        type=options.not_negative,
        default=0.3,
        metavar='X',
        help='mean optical flow in pixels from frame to frame, below which a sample is dropped (0.3)',
    )
    add(
        '--videos-per-shard',
        type=options.at_least_1,
        default=100,
        metavar='N',
        help='how many videos share a file; as many are lost by a kill at most (100)',
    )
    add(
        '--encode',
        metavar='WEIGHTS',
        help='also store latents and text embeddings, by the autoencoder and the text tower of these weights: training '
        'from them need not make them',
    )
    add(
        '--workers',
        type=options.at_least_1,
        default=os.cpu_count() or 1,
        metavar='N',
        help='processes that decode (one for each core)',
    )
    add('--quiet', action='store_true', help='print errors only')
    return parser
