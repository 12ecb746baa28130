"""`st2v enhance --input video.mp4 --prompt "..."`: a larger, sharper video of what its prompt says."""

import dataclasses
import os
from pathlib import Path

from st2v_jax import __version__, video_io
from st2v_jax.cli import options
from st2v_jax.cli.progress import Progress
from st2v_jax.cli.videos import enhanced, name_device, save, warn_about_words
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
The input is any video file that ffmpeg knows, or a folder of PNG files. The output's ending decides as for sample;
an .mp4 grows while it is written, after the last step. While it works, latents lie in a temporary folder ($TMPDIR).
"""


def work(arguments, run):
    """Checks, enhances, saves."""
    video = _input(arguments)
    if arguments.plan:
        return _plan(arguments, video)
    from st2v_jax.refinement.enhancer import load_enhancer

    if not arguments.quiet:
        name_device()
    enhancer = load_enhancer(arguments.weights, devices=arguments.devices)
    settings = _settings(arguments, enhancer)
    warn_about_words(enhancer.tokenizer, [arguments.prompt, arguments.negative_prompt])
    run.lower = ('--decode-frames 1',) * (arguments.decode_frames > 1) + ('--weights with a smaller model',)
    profile = arguments.profile or enhancer.config.profile
    fps = arguments.fps or video.fps or 8.0
    metadata = {
        'prompt': arguments.prompt,
        'negative_prompt': arguments.negative_prompt,
        'seed': arguments.seed,
        'input': arguments.input,
        'profile': profile,
        'settings': dataclasses.asdict(settings),
        'command': run.parser.again(
            arguments, output=arguments.output, seed=arguments.seed, steps=settings.steps, fps=fps
        ),
        'st2v_jax': __version__,
    }
    with Progress(Path(arguments.input).name, quiet=arguments.quiet) as progress:
        pieces = enhanced(
            enhancer,
            _read(video, progress),
            arguments.prompt,
            progress,
            settings,
            seed=arguments.seed,
            negative_prompt=arguments.negative_prompt,
            profile=profile,
            decode_frames=arguments.decode_frames,
        )
        save(pieces, arguments.output, fps, metadata, progress, run)


def _input(arguments):
    """The opened input; the output's name is completed and checked."""
    from st2v_jax.streaming.generate import check

    check([arguments.prompt], [arguments.seed])
    video = video_io.VideoReader(arguments.input)
    if arguments.output is None:
        arguments.output = f'{Path(arguments.input).resolve().stem}-enhanced.mp4'
    video_io.check_output(arguments.output)
    if os.path.exists(arguments.output) and os.path.samefile(arguments.input, arguments.output):
        raise BadInput(f'{arguments.output} is the input: name another --output')
    return video


def _plan(arguments, video):
    from st2v_jax.cli import plan
    from st2v_jax.planning.video import abstract_enhancer

    if arguments.devices > 1:
        raise BadInput(f'--plan is for one device, not {arguments.devices}')
    name_device()
    enhancer = abstract_enhancer(arguments.weights)
    settings, count = _settings(arguments, enhancer), sum(map(len, video))
    plan.show_refinement(
        enhancer,
        settings,
        video.size,
        count,
        profile=arguments.profile or enhancer.config.profile,
        decode_frames=arguments.decode_frames,
    )


def _settings(arguments, enhancer):
    variant = {'variant': arguments.profile or enhancer.config.profile}
    return enhancer.settings(**variant | options.given(arguments, 'steps', 'start', 'guidance', 'variant'))


def _read(video, progress):
    progress.stage('reading', video.frames)
    count = 0
    for frames in video:
        yield frames
        count += len(frames)
        progress.to(count)


def parser(prog):
    parser = options.Parser(prog, DESCRIPTION, epilog=EXAMPLES.format(run=prog))
    add = parser.add_argument
    add('--input', required=True, metavar='PATH', help='a video file, or a folder of PNG files')
    add('--prompt', required=True, help='what the video shows, in a sentence')
    add('--plan', action='store_true', help='print what it will take on this device, stage by stage, and stop')
    add('--output', metavar='PATH', help="video.mp4, video.gif, frame.png or folder/ (default: from the input's name)")
    add('--seed', type=options.seed, default=0, metavar='N', help='another seed, other details (0)')
    add('--steps', type=options.at_least_1, metavar='N', help='denoising steps (default: the model says)')
    add(
        '--start',
        type=options.at_least_1,
        metavar='N',
        help='how much is drawn again: from which of the noise levels, 1 to 999, it begins (default: the model says)',
    )
    add(
        '--guidance', type=options.number, metavar='X', help='how strictly to follow the text (default: the model says)'
    )
    add('--negative-prompt', default='', metavar='TEXT', help='what the video should not show')
    add('--profile', choices=('paper', 'release'), help='rules of the paper or of its released program')
    add(
        '--variant',
        metavar='NAME',
        help='how chunks are blended: paper, release, B (not at all) or B+S (with shared noise only); '
        'the default is as the profile says',
    )
    add('--fps', type=options.rate, metavar='X', help="frames per second of the file (default: the input's, or 8)")
    add('--weights', metavar='FOLDER', help='another model: a folder that train or convert wrote')
    add('--devices', type=options.at_least_1, default=1, metavar='N', help='devices that chunks are spread over (1)')
    add(
        '--decode-frames',
        type=options.at_least_1,
        default=4,
        metavar='N',
        help='frames encoded or decoded at once; fewer need less memory (4)',
    )
    add('--quiet', action='store_true', help='print warnings and errors only')
    return parser
