"""`st2v enhance --input video.mp4 --prompt "..."`: the video again, larger and sharper."""

import dataclasses
import hashlib
import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from st2v_jax import __version__, video_io
from st2v_jax.cli import options, outputs, schedules
from st2v_jax.cli.progress import Progress, warn
from st2v_jax.cli.run import Run
from st2v_jax.cli.videos import check_words, enhanced, name_device, save
from st2v_jax.errors import BadInput
from st2v_jax.storage.names import fit

if TYPE_CHECKING:  # these import jax, for which --help does not wait
    from st2v_jax.refinement.enhancer import Enhancer
    from st2v_jax.refinement.sdedit import RefineSettings

DESCRIPTION = """\
Redraws a video, larger and sharper, in overlapping chunks that are joined by randomized blending. The duration, the
frame rate and the aspect stay the same; sound is dropped. The prompt says what the video shows.

Without --weights the small model that ships with the package is used. Its videos have up to 256x256 pixels, and it
knows only the small world that it was trained on.
"""
EXAMPLES = """\
examples:
  {run} --input ball.mp4 --prompt "a red ball bounces over a meadow"
  {run} --input frames/ --fps 12 --prompt "a blue star spins" --output star.gif --seed 7
  {run} --input long.mp4 --prompt "a blue star spins" --output large.mp4 --resume large-work

The input is any video file that ffmpeg reads, or a folder of pictures (png, jpg, webp, bmp or tif). A video with a
variable frame rate is resampled to its mean rate, and any video to the rate of --fps; the duration stays. The ending of
the output decides what is written, as for sample. Frames are written after the last step; until then, latents are kept
in a temporary folder (in $TMPDIR), or in that of --resume. --plan says how large it becomes.
"""


def work(arguments: Namespace, run: Run) -> None:
    """Checks the arguments, enhances the video and saves it."""
    video = _input(arguments)
    if arguments.plan:
        if arguments.output is not None:
            video_io.check_output(arguments.output)
        return _plan(arguments, video)
    if arguments.output is None:
        stem = Path(arguments.input).resolve().stem
        claim = outputs.unused(fit(stem, '-enhanced.mp4'))
    else:
        claim = outputs.claimed(arguments.output)
    with claim as output:
        arguments.output = output
        _make(arguments, video, run)


def _make(arguments, video, run):
    from st2v_jax.refinement import kept
    from st2v_jax.refinement.enhancer import load_enhancer
    from st2v_jax.refinement.scratch import check_room

    if not arguments.quiet:
        name_device(arguments.dtype)
    enhancer = load_enhancer(arguments.weights, arguments.dtype, devices=arguments.devices)
    settings = settings_of(arguments, enhancer)
    if video.frames is not None and arguments.resume is None:
        check_room(enhancer.scratch_bytes(settings, video.size, video.frames))
    prompts = schedules.from_options(arguments)
    check_words(enhancer.tokenizer, prompts.prompts, arguments.negative_prompt)
    run.lower = ('--decode-frames 1',) * (arguments.decode_frames > 1) + ('--weights with a smaller model',)
    profile = arguments.profile or enhancer.config.profile
    metadata = {
        **schedules.spelled(prompts),
        'negative_prompt': arguments.negative_prompt,
        'seed': arguments.seed,
        'input': arguments.input,
        'profile': profile,
        'settings': dataclasses.asdict(settings),
        'command': run.parser.again(
            arguments, output=arguments.output, seed=arguments.seed, steps=settings.steps, fps=video.fps
        ),
        'st2v_jax': __version__,
    }
    with Progress(Path(arguments.input).name, quiet=arguments.quiet) as progress:
        pieces = enhanced(
            enhancer,
            _read(video, progress),
            prompts,
            progress,
            settings,
            seed=arguments.seed,
            negative_prompt=arguments.negative_prompt,
            profile=profile,
            decode_frames=arguments.decode_frames,
            folder=arguments.resume,
            keep=None if arguments.resume is None else _hash(arguments.input, video.fps),
        )
        save(pieces, arguments.output, video.fps, metadata, progress, run)
    if arguments.resume is not None:
        kept.remove(arguments.resume)


def _hash(path, fps):
    """The SHA-256 of an input at a frame rate."""
    files = sorted(file for file in Path(path).iterdir() if file.is_file()) if os.path.isdir(path) else [path]
    digest = hashlib.sha256(f'{float(fps)}'.encode())
    for name in files:
        with open(name, 'rb') as file:
            digest.update(hashlib.file_digest(file, 'sha256').digest())
    return digest.hexdigest()


def _input(arguments):
    """The opened input, which the output must not replace."""
    prompts = schedules.from_options(arguments)
    video = video_io.VideoReader(arguments.input, arguments.fps)
    if video.frames is not None:
        prompts.check(video.frames)
    video_io.check_rate(arguments.output or '.mp4', video.fps)
    if arguments.output is not None:
        written = Path(arguments.output)
        if written.suffix.lower() == '.png' and not written.is_dir():  # a series replaces what is in its folder
            written = written.parent
        if written.exists() and os.path.samefile(arguments.input, written):
            raise BadInput(f'{arguments.output} is the input: choose another --output')
    for note in video.notes:
        warn(f'{arguments.input}: {note}')
    return video


def _plan(arguments, video):
    from st2v_jax.cli import needs
    from st2v_jax.planning.video import abstract_enhancer

    if arguments.devices > 1:
        raise BadInput(f'--plan works for one device, not {arguments.devices}')
    name_device(arguments.dtype)
    enhancer = abstract_enhancer(arguments.weights, arguments.dtype)
    settings = settings_of(arguments, enhancer)
    needs.show_refinement(
        enhancer,
        settings,
        video.size,
        video.frames,
        profile=arguments.profile or enhancer.config.profile,
        decode_frames=arguments.decode_frames,
    )


def settings_of(arguments: Namespace, enhancer: 'Enhancer') -> 'RefineSettings':
    """How a video is refined, from the options of `add_settings`."""
    variant = {'variant': arguments.profile or enhancer.config.profile}
    return enhancer.settings(**variant | options.given(arguments, 'steps', 'start', 'guidance', 'variant'))


def _read(video, progress):
    progress.stage('reading', video.frames)
    count = 0
    for frames in video:
        yield frames
        count += len(frames)
        progress.to(count)


def add_settings(add) -> None:
    """Adds the options that determine enhanced frames, which `st2v session enhance` has too."""
    add(
        '--seed',
        type=options.seed,
        default=0,
        metavar='N',
        help='random seed; each seed draws other details (default: 0)',
    )
    add('--steps', type=options.at_least_1, metavar='N', help='denoising steps (default: set by the model)')
    add(
        '--start',
        type=options.at_least_1,
        metavar='N',
        help='noise level to start from, 1 to 999; a higher one redraws more (default: set by the model)',
    )
    add('--guidance', type=options.guidance, metavar='X', help='guidance scale of the text (default: set by the model)')
    add('--negative-prompt', default='', metavar='TEXT', help='what the video should not show')
    add(
        '--profile',
        choices=('paper', 'release'),
        help='sampling rules of the paper or of its released program (default: set by the model)',
    )
    add(
        '--variant',
        metavar='NAME',
        help='how chunks are joined: blended as in the paper or release; the ablations are B (not blended) and B+S '
        '(only noise is shared) (default: that of the profile)',
    )


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    usage = f'{prog} --input PATH --prompt TEXT [options]'
    parser = options.Parser(prog, DESCRIPTION, epilog=EXAMPLES.format(run=prog), usage=usage)
    add = parser.add_argument
    add('--input', required=True, metavar='PATH', help='a video file, or a folder of pictures')
    add('--prompt', required=True, metavar='TEXT', help='what the video shows, in one sentence')
    schedules.add_options(add)
    add('--plan', action='store_true', help='print the time and memory needed on this device, and exit')
    add(
        '--output',
        metavar='PATH',
        help='video.mp4, video.gif, frame.png or folder/ (default: an .mp4 named after the input, with a '
        'number if that name is taken)',
    )
    add_settings(add)
    add(
        '--fps',
        type=options.rate,
        metavar='X',
        help='frames per second: a video is resampled to it, its duration stays; pictures are shown at it '
        '(default: those of the input; 8 for pictures)',
    )
    add('--weights', metavar='FOLDER', help='a model written by train or convert (default: the small model)')
    add(
        '--devices',
        type=options.at_least_1,
        default=1,
        metavar='N',
        help='number of devices that share the chunks (default: 1)',
    )
    add(
        '--resume',
        metavar='FOLDER',
        help='keep the work in this new folder: after a crash or a kill the same command goes on where it was',
    )
    add(
        '--decode-frames',
        type=options.at_least_1,
        default=4,
        metavar='N',
        help='frames encoded or decoded at once; fewer take less memory (default: 4)',
    )
    add('--dtype', choices=options.DTYPES, help='what networks compute in (default: what suits the device)')
    add('--quiet', action='store_true', help='print warnings and errors only')
    return parser
