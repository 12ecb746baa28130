"""`python prepare_data.py --videos FOLDER --output FOLDER`: videos with captions become clips that train.py reads."""

import contextlib
import importlib.util
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from st2v_jax import __version__
from st2v_jax.cli import loading, options
from st2v_jax.cli.progress import Progress
from st2v_jax.cli.report import fail
from st2v_jax.errors import BadInput

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

exit codes: 0 done, 1 nothing to train on or the disk failed, 2 bad input, 130 Ctrl-C
"""


def main(argv=None) -> int:
    """Parse, prepare, report; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    for name in ('scenedetect', 'array_record'):
        if importlib.util.find_spec(name) is None:
            return fail(f"{name} is not installed: pip install 'st2v_jax[train]'", 2)
    from st2v_jax.data import prepare

    again = parser.again(arguments)
    try:
        settings, entries = _input(arguments, prepare)
        encoder = _encoder(arguments)
    except (BadInput, ValueError, OSError) as error:
        return fail(error, 2)
    try:
        with Progress(Path(arguments.videos).name, quiet=arguments.quiet) as progress, _processes(arguments) as apply:
            progress.stage('preparing', len(entries), 'videos')
            made = prepare.prepare(arguments.videos, entries, arguments.output, settings, encoder=encoder, apply=apply,
                                   done=progress.to)
    except ValueError as error:
        return fail(error, 2)
    except BrokenProcessPool:
        return fail(f'a process died, of a video or for want of memory; --workers 1 shows where; again: {again}', 1)
    except OSError as error:
        return fail(f'{error}; what is finished stays, go on with: {again}', 1)
    except KeyboardInterrupt:
        return fail(f'what is finished stays, go on with: {again}', 130, 'stopped')
    if made['skipped'] and not arguments.quiet:
        print(f'left out {made["skipped"]} of {made["videos"]} videos: {Path(arguments.output, "skipped.jsonl")}')
    if not made['samples']:
        return fail(f'no video gave a sample; {Path(arguments.output, "skipped.jsonl")} says why', 1)
    if not arguments.quiet:
        print(f'{made["samples"]} samples of {settings.frames} frames in {arguments.output}; '
              f'{made["still"]} that stood still were dropped')
    return 0


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
    """The Encoder of --encode, or None; ValueError or BadInput where those weights are no good."""
    if arguments.encode is None:
        return None
    from st2v_jax.data import encoding  # jax, which takes a second to import

    return loading.load(partial(encoding.load, arguments.encode, arguments.size), quiet=True)


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


def _parser():
    parser = options.Parser('prepare_data.py', 'st2v-prepare-data', DESCRIPTION)
    parser.epilog = EXAMPLES.format(run=parser.run)
    add = parser.add_argument
    add('--videos', required=True, metavar='FOLDER', help='where the videos are')
    add('--captions', metavar='FILE', help='a line of JSON for each video (default: captions.jsonl in that folder)')
    add('--output', required=True, metavar='FOLDER', help='where the clips go')
    add('--frames', type=options.at_least_1, default=16, metavar='N',
        help='frames of a sample: 16, or 32 for the stage apm (16)')
    add('--fps', type=options.positive, default=3.0, metavar='X', help='frames per second of a sample (3)')
    add('--size', type=options.frame_size, default=(256, 256), metavar='HxW',
        help='height and width of its frames; N for a square (256)')
    add('--min-motion', type=options.not_negative, default=0.3, metavar='X',
        help='mean optical flow in pixels from frame to frame, below which a sample is dropped (0.3)')
    add('--videos-per-shard', type=options.at_least_1, default=100, metavar='N',
        help='how many videos share a file; as many are lost by a kill at most (100)')
    add('--encode', metavar='WEIGHTS',
        help='also store latents and text embeddings, by the autoencoder and the text tower of these weights: training '
             'from them need not make them')
    add('--workers', type=options.at_least_1, default=os.cpu_count() or 1, metavar='N',
        help='processes that decode (one for each core)')
    add('--quiet', action='store_true', help='print errors only')
    add('--version', action='version', version=f'st2v_jax {__version__}')
    return parser
