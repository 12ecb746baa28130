"""`st2v prepare-data --videos FOLDER --output FOLDER`: cuts captioned videos into clips that `st2v train` reads."""

import contextlib
import multiprocessing
import os
import signal
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from st2v_jax import stopping
from st2v_jax.cli import options
from st2v_jax.cli.progress import Progress
from st2v_jax.cli.run import Run, require
from st2v_jax.errors import Failed
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_folder

DESCRIPTION = """\
Turns captioned videos into clips for training. It cuts the videos at scene changes, takes 3 frames per second, crops
them to a square and drops clips that stand still. The clips are written as ArrayRecord shards; train reads them with
--config.data.source=FOLDER.
"""
EXAMPLES = """\
examples:
  {run} --videos videos/ --output clips/
  {run} --videos videos/ --output clips-apm/ --frames 32 --workers 8
  {run} --videos videos/ --output clips/ --encode runs/video_ldm/weights

The captions file has one line for each video:
  {{"file": "boat.mp4", "caption": "a boat on a lake"}}

Videos that cannot be read or give no clip are listed in skipped.jsonl with the reason. To continue a run that was
stopped or killed, repeat the command. A folder is complete when it has an index.json.
"""


def work(arguments: Namespace, run: Run) -> None:
    """Checks the arguments, prepares the clips and reports."""
    require('train', 'scenedetect', 'array_record')
    from st2v_jax.data import prepare

    settings, entries = _input(arguments, prepare)
    with locked(arguments.output):
        check_folder(arguments.output)
        made = _prepare(arguments, settings, entries, run)
    skipped = Path(arguments.output, prepare.SKIPPED)
    if made['skipped'] and not arguments.quiet:
        print(f'left out {made["skipped"]} of {made["videos"]} videos: {skipped}')
    if not made['samples']:
        raise Failed(f'no video gave a clip; {skipped} says why')
    if not arguments.quiet:
        print(
            f'{made["samples"]} clips of {settings.frames} frames in {arguments.output}; '
            f'dropped {made["still"]} that stood still'
        )


def _prepare(arguments, settings, entries, run):
    """Writes the clips; returns the counts of `prepare.prepare`."""
    from st2v_jax.data import prepare

    encoder = _encoder(arguments)
    run.target, run.written = arguments.output, 'what is finished stays'
    try:
        with Progress(Path(arguments.videos).name, quiet=arguments.quiet) as progress, _processes(arguments) as apply:
            progress.stage('preparing', len(entries), 'videos')
            return prepare.prepare(
                arguments.videos, entries, arguments.output, settings, encoder=encoder, apply=apply, done=progress.to
            )
    except BrokenProcessPool as error:
        raise Failed(
            f'a process died, because of a video or lack of memory; --workers 1 shows where; again: {run.again}'
        ) from error


def _input(arguments, prepare):
    """Returns (Settings, entries of the captions file); raises ValueError or OSError if they are not valid."""
    if not os.path.isdir(arguments.videos):
        raise ValueError(f'there is no folder {arguments.videos}')
    names = ('frames', 'fps', 'size', 'min_motion', 'videos_per_shard')
    settings = prepare.Settings(**{name: getattr(arguments, name) for name in names})
    return settings, prepare.read_captions(arguments.captions or Path(arguments.videos, 'captions.jsonl'))


def _encoder(arguments):
    """The Encoder of --encode, or None; raises ValueError if those weights do not fit."""
    if arguments.encode is None:
        return None
    from st2v_jax.data import encoding  # imports jax, which takes a second

    return encoding.load(arguments.encode, arguments.size)


@contextlib.contextmanager
def _processes(arguments):
    """A `map` over the processes of --workers, or over this process alone."""
    if arguments.workers == 1:
        yield map
        return
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context('spawn'), _ignore_signals) as pool:

        def apply(function, items):
            futures = [pool.submit(function, item) for item in items]
            for future in futures:
                while not wait([future], timeout=0.2).done:  # a video can take minutes, and Ctrl-C should not
                    stopping.check()
                yield future.result()

        try:
            yield apply
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _ignore_signals():
    """In a process of the pool: the terminal sends Ctrl-C to all of them, but the main process decides."""
    for number in stopping.SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    usage = f'{prog} --videos FOLDER --output FOLDER [options]'
    parser = options.Parser(prog, DESCRIPTION, epilog=EXAMPLES.format(run=prog), usage=usage)
    add = parser.add_argument
    add('--videos', required=True, metavar='FOLDER', help='folder of the videos')
    add(
        '--captions',
        metavar='FILE',
        help='captions, one line of JSON per video (default: captions.jsonl in that folder)',
    )
    add('--output', required=True, metavar='FOLDER', help='folder for the clips')
    add(
        '--frames',
        type=options.at_least_1,
        default=16,
        metavar='N',
        help='frames of a clip; the stage apm needs 32 (default: 16)',
    )
    add('--fps', type=options.rate, default=3.0, metavar='X', help='frames per second of a clip (default: 3)')
    add(
        '--size',
        type=options.frame_size,
        default=options.frame_size('256'),
        metavar='HxW',
        help='height and width of a frame, or one number for a square (default: 256)',
    )
    add(
        '--min-motion',
        type=options.not_negative,
        default=0.3,
        metavar='X',
        help='clips with less optical flow than this, in pixels per frame, are dropped (default: 0.3)',
    )
    add(
        '--videos-per-shard',
        type=options.at_least_1,
        default=100,
        metavar='N',
        help='videos per file; after a kill, at most this many are processed again (default: 100)',
    )
    add(
        '--encode',
        metavar='WEIGHTS',
        help='also store latents and text embeddings, made by the autoencoder and the text tower of these weights, '
        'so that training need not compute them',
    )
    add(
        '--workers',
        type=options.at_least_1,
        default=os.cpu_count() or 1,
        metavar='N',
        help='processes that decode videos (default: one per core)',
    )
    add('--quiet', action='store_true', help='print errors only')
    return parser
