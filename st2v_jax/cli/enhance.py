"""`python enhance.py --input video.mp4 --prompt "..."`: a larger, sharper video of what its prompt says.

Exit codes are those of sample.py.
"""

import dataclasses
import os
import sys
from pathlib import Path

from st2v_jax import __version__, errors, video_io
from st2v_jax.cli import loading, options
from st2v_jax.cli.enhancing import enhanced
from st2v_jax.cli.progress import Progress
from st2v_jax.cli.report import fail, warn_about_words
from st2v_jax.cli.saving import save
from st2v_jax.errors import BadInput

DESCRIPTION = """\
Draws a video once more, larger and sharper, in overlapping chunks that are blended at random: as many frames, the same
aspect, no sound. The prompt says what the video shows. Without --weights the small model of the package works, to
256x256 pixels; it knows its own small world and nothing else.
"""
EXAMPLES = """\
examples:
  {run} --input ball.mp4 --prompt "a red ball bounces over a meadow"
  {run} --input frames/ --fps 12 --prompt "a blue star spins" --output star.gif --seed 7
The input is any video file that ffmpeg knows, or a folder of PNG files. The output's ending decides as in sample.py;
an .mp4 grows while it is written, after the last step. While it works, latents lie in a temporary folder ($TMPDIR).
"""


def main(argv=None) -> int:
    """Parse, check, enhance, report; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    try:
        video = _input(arguments)
        if arguments.plan:
            return _plan(arguments, video)
        enhancer = loading.load(lambda: _load(arguments), quiet=arguments.quiet)
        settings = _settings(arguments, enhancer)
        warn_about_words(enhancer.tokenizer, [arguments.prompt, arguments.negative_prompt])
    except (BadInput, errors.InputError, errors.OutputError) as error:
        return fail(error, 2)
    except KeyboardInterrupt:
        return fail('nothing was written', 130, 'stopped')
    profile = arguments.profile or enhancer.config.profile
    fps = arguments.fps or video.fps or 8.0
    metadata = {
        'prompt': arguments.prompt,
        'negative_prompt': arguments.negative_prompt,
        'seed': arguments.seed,
        'input': arguments.input,
        'profile': profile,
        'settings': dataclasses.asdict(settings),
        'command': parser.again(arguments, output=arguments.output, seed=arguments.seed, steps=settings.steps, fps=fps),
        'st2v_jax': __version__,
    }
    with Progress(Path(arguments.input).name, quiet=arguments.quiet) as progress:
        pieces = enhanced(
            enhancer, _read(video, progress), arguments.prompt, progress, settings, seed=arguments.seed,
            negative_prompt=arguments.negative_prompt, profile=profile, decode_frames=arguments.decode_frames,
        )
        lower = ['--decode-frames 1'] if arguments.decode_frames > 1 else []
        return save(pieces, arguments.output, fps, metadata, progress, lower=lower)


def _input(arguments):
    """The opened input; the output's name is completed and checked."""
    if not arguments.prompt.strip():
        raise BadInput('the prompt is empty: say in a sentence what the video shows')
    video = video_io.VideoReader(arguments.input)
    if arguments.output is None:
        arguments.output = f'{Path(arguments.input).resolve().stem}-enhanced.mp4'
    video_io.check_output(arguments.output)
    if os.path.exists(arguments.output) and os.path.samefile(arguments.input, arguments.output):
        raise BadInput(f'{arguments.output} is the input: name another --output')
    return video


def _load(arguments):
    from st2v_jax.refinement.enhancer import load_enhancer

    try:
        return load_enhancer(arguments.weights, devices=arguments.devices)
    except ValueError as error:  # too many devices, or weights that do not fit
        raise BadInput(error) from error


def _plan(arguments, video):
    from st2v_jax.cli import planning
    from st2v_jax.planning.video import abstract_enhancer

    if arguments.devices > 1:
        raise BadInput(f'--plan is for one device, not {arguments.devices}')
    enhancer = loading.load(lambda: abstract_enhancer(arguments.weights), quiet=False)
    settings, count = _settings(arguments, enhancer), sum(map(len, video))
    planning.show_refinement(
        enhancer, settings, video.size, count,
        profile=arguments.profile or enhancer.config.profile, decode_frames=arguments.decode_frames,
    )
    return 0


def _settings(arguments, enhancer):
    names = ('steps', 'start', 'guidance', 'variant')
    chosen = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    try:
        return enhancer.settings(**{'variant': arguments.profile or enhancer.config.profile} | chosen)
    except ValueError as error:
        raise BadInput(error) from error


def _read(video, progress):
    progress.stage('reading', video.frames)
    count = 0
    for frames in video:
        yield frames
        count += len(frames)
        progress.to(count)


def _parser():
    parser = options.Parser('enhance.py', 'st2v-enhance', DESCRIPTION)
    parser.epilog = EXAMPLES.format(run=parser.run)
    add = parser.add_argument
    add('--input', required=True, metavar='PATH', help='a video file, or a folder of PNG files')
    add('--prompt', required=True, help='what the video shows, in a sentence')
    add('--plan', action='store_true', help='print what it will take on this device, stage by stage, and stop')
    add('--output', metavar='PATH', help="video.mp4, video.gif, frame.png or folder/ (default: from the input's name)")
    add('--seed', type=options.seed, default=0, metavar='N', help='another seed, other details (0)')
    add('--steps', type=options.at_least_1, metavar='N', help='denoising steps (default: the model says)')
    add('--start', type=options.at_least_1, metavar='N',
        help='how much is drawn anew: from which of the noise levels, 1 to 999, it begins (default: the model says)')
    add('--guidance', type=options.number, metavar='X',
        help='how strictly to follow the text (default: the model says)')
    add('--negative-prompt', default='', metavar='TEXT', help='what the video should not show')
    add('--profile', choices=('paper', 'release'), help='rules of the paper or of its released program')
    add('--variant', choices=('paper', 'release', 'B', 'B+S'),
        help='how chunks are blended (default: as the profile says); B: not at all, B+S: with shared noise only')
    add('--fps', type=options.positive, metavar='X', help="frames per second of the file (default: the input's, or 8)")
    add('--weights', metavar='FOLDER', help='another model: a folder that train.py or convert.py wrote')
    add('--devices', type=options.at_least_1, default=1, metavar='N', help='devices that chunks are spread over (1)')
    add('--decode-frames', type=options.at_least_1, default=4, metavar='N',
        help='frames encoded or decoded at once; fewer need less memory (4)')
    add('--quiet', action='store_true', help='print warnings and errors only')
    add('--version', action='version', version=f'st2v_jax {__version__}')
    return parser
