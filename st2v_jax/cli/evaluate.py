"""`st2v evaluate STUDY`: what a model's long videos show, and what refinement makes of them, in numbers."""

import argparse
from pathlib import Path

from st2v_jax.cli import options
from st2v_jax.cli.run import require

DESCRIPTION = """\
Measures the long videos of a model, which it makes from captions of the small world that no training scene has, and
what refinement makes of them. Numbers and pictures are stored; pages are written from what is stored.
"""
EPILOG = """\
One after the other:
  {run} train-checker --checker runs/checker.npz --weights runs/apm/weights
  {run} generate --weights runs/apm/weights --checker runs/checker.npz --out runs/evaluation
  {run} report --results docs/small-model/results.json \\
    --training docs/small-model/training/*.json --output docs/small-model.md
generate measures what it makes; measure does it again for videos that were kept.
The refinement stage, on videos that were kept:
  {run} refine --weights runs/refiner/weights --videos runs/evaluation/videos.npz --out runs/refinement
  {run} refinement-report --results docs/refinement/results.json \\
    --training docs/refinement/training/*.json --output docs/refinement.md
"""
TINY = {'channels': (8, 8), 'batch': 4, 'batches': 1}  # runs the program, learns nothing


def work(arguments, run):
    """Does the study."""
    run.written, run.lower = 'what is finished stays', ('--batch',)
    arguments.study(arguments, run)


def train_checker(arguments, run):
    from st2v_jax.evaluation.checker_training import train_on_world

    sizes = TINY if arguments.tiny else {'batch': arguments.batch}
    train_on_world(
        arguments.checker,
        folder=arguments.weights,
        size=arguments.size,
        seed=arguments.seed,
        seconds=arguments.seconds,
        steps=arguments.steps,
        command=run.again,
        **sizes,
    )


def generate(arguments, run):
    _require_opencv()
    from st2v_jax.evaluation import generation

    chosen = options.given(
        arguments, 'profile', 'steps', 'guidance_text', 'guidance_anchor', 'first_guidance', 'guidance_rescale'
    )
    generation.study(
        arguments.out,
        arguments.checker,
        folder=arguments.weights,
        captions=arguments.captions,
        frames=arguments.frames,
        seed=arguments.seed,
        batch=arguments.batch,
        dtype=arguments.dtype,
        sheet=arguments.sheet,
        keep=arguments.keep,
        nearest=arguments.nearest,
        train_seed=arguments.train_seed,
        command=run.again,
        **chosen,
    )


def measure(arguments, run):
    _require_opencv()
    from st2v_jax.evaluation import generation

    generation.measure(arguments.videos, arguments.checker, arguments.output)


def refine(arguments, run):
    _require_opencv()
    from st2v_jax.evaluation import comparison

    comparison.study(
        arguments.out,
        folder=arguments.weights,
        videos_file=arguments.videos,
        captions=arguments.captions,
        world=arguments.world,
        frames=arguments.frames,
        batch=arguments.batch,
        seed=arguments.seed,
        dtype=arguments.dtype,
        command=run.again,
        **options.given(arguments, 'variants', 'steps', 'start', 'guidance', 'rescale'),
    )


def report(arguments, run):
    from st2v_jax.evaluation import model_page, pages

    pages.write(model_page.page, arguments.results, arguments.training, arguments.output)


def refinement_report(arguments, run):
    from st2v_jax.evaluation import pages, refinement_page

    pages.write(refinement_page.page, arguments.results, arguments.training, arguments.output)


def _require_opencv():
    """What measures motion; asked for before minutes of sampling, not after them."""
    require('evaluate', 'cv2')


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults beside the help, where there is one."""

    def _get_help_string(self, action):
        bare = action.default is None or action.default is False or action.default == []
        return action.help if bare else super()._get_help_string(action)


def parser(prog):
    parser = options.Parser(prog, DESCRIPTION, epilog=EPILOG.format(run=prog))
    studies = parser.add_subparsers(required=True, metavar='STUDY', prog=prog)

    def study(does, text):
        name = does.__name__.replace('_', '-')
        added = studies.add_parser(name, help=text, description=text, formatter_class=_Help)
        added.set_defaults(study=does)
        return added.add_argument

    add = study(train_checker, 'train the network that reads colour, shape and motion from clips')
    add('--checker', type=Path, required=True, help='npz file to write')
    add('--seconds', type=options.positive, default=80, help='of training, after the compilation')
    add('--steps', type=options.at_least_1, default=100_000, help='at most')
    add('--size', type=options.at_least_1, help='pixels of a frame (default: of the weights, else 128)')
    add('--batch', type=options.at_least_1, default=64, help='clips of 16 frames')
    add('--weights', type=Path, help='a model; its autoencoder softens some of the clips')
    add('--seed', type=options.seed, default=1_000_003, help='of the world and of the network')
    add('--tiny', action='store_true', help='a few channels and clips: runs the program, learns nothing')

    add = study(generate, 'make long videos of unseen captions, measure them, draw sheets')
    add('--weights', type=Path, help='folder of a model (default: the shipped one)')
    add('--checker', type=Path, required=True, help='npz file of train-checker')
    add('--out', type=Path, required=True, help='folder for results.json, sheets and kept videos')
    add('--captions', type=options.at_least_1, default=64, help='videos to make')
    add('--frames', type=options.at_least_1, default=240, help='of each')
    add('--seed', type=options.seed, default=2_000_003, help='of the world and of the noise')
    add('--batch', type=options.at_least_1, default=32, help='videos made at once')
    add('--dtype', choices=('float32', 'bfloat16'), help='default: bfloat16 on an accelerator')
    add('--steps', type=options.at_least_1, help='denoising steps of a chunk (default: as for st2v sample)')
    add('--profile', choices=('paper', 'release'))
    add('--guidance-text', type=options.number, help='of the first chunk too, unless --first-guidance is given')
    add('--guidance-anchor', type=options.number)
    add('--first-guidance', type=options.number)
    add('--guidance-rescale', type=options.number)
    add('--sheet', type=options.at_least_1, default=8, help='videos on the sheets')
    add('--keep', type=int, default=8, help='videos kept in videos.npz as JPEG frames')
    add('--nearest', type=int, default=4096, help='training scenes to compare with; 0 for none')
    add('--train-seed', type=int, default=0, help='config.data.seed of the training')

    add = study(measure, 'measure the videos that generate kept')
    add('--videos', type=Path, required=True, help='videos.npz of generate')
    add('--checker', type=Path, required=True, help='npz file of train-checker')
    add('--output', type=Path, required=True, help='JSON file to write')

    add = study(report, 'write the page about the small model from stored JSON')
    add('--results', type=Path, required=True, help='results.json of generate')
    add('--training', type=Path, nargs='*', default=[], help='summary.json of the stages, in order')
    add('--output', type=Path, required=True, help='Markdown file to write')

    add = study(refine, 'refine videos in all variants, measure and draw them')
    add('--weights', type=Path, help='folder of a model with a Refiner (default: the shipped one)')
    add('--out', type=Path, required=True, help='folder for results.json and pictures')
    add('--videos', type=Path, help='videos.npz of generate (default: the model makes some)')
    add('--captions', type=options.at_least_1, default=16, help='videos to refine, at most')
    add('--world', type=options.at_least_1, default=8, help='of their scenes to refine as the world draws them')
    add('--frames', type=options.at_least_1, default=240, help='of each video that the model makes')
    add('--batch', type=options.at_least_1, default=32, help='videos that the model makes at once')
    add('--seed', type=options.seed, default=2_000_003, help='of the world and of the noise')
    add('--variants', nargs='+', metavar='NAME', help='of paper, release, B and B+S (default: all)')
    add('--dtype', choices=('float32', 'bfloat16'), help='default: bfloat16 on an accelerator')
    add('--steps', type=options.at_least_1, help='denoising steps (default: of the model, as the three below)')
    add('--start', type=options.at_least_1, help='entry of the table where SDEdit begins')
    add('--guidance', type=options.number)
    add('--rescale', type=options.number)

    add = study(refinement_report, 'write the page about refinement from stored JSON')
    add('--results', type=Path, required=True, help='results.json of refine')
    add('--training', type=Path, nargs='*', default=[], help='summary.json of the stages')
    add('--output', type=Path, required=True, help='Markdown file to write')
    return parser
