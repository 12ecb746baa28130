"""`st2v evaluate`: measures videos of any program, the long videos of a model, and what refinement does to them."""

import argparse
from argparse import Namespace
from pathlib import Path

from st2v_jax.cli import evaluate_methods, evaluate_protocol, evaluate_videos, options
from st2v_jax.cli.run import Run, require
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_file, check_folder

DESCRIPTION = """\
Measures videos of any program, and compares methods. Other studies measure the long videos of a model, and what
refinement does to them. Their videos are made from captions of the small world that do not occur in training. Numbers
and pictures are stored, and pages are written from what is stored.
"""
EPILOG = """\
videos that are there already; what is measured is not measured again:
  {run} --videos folder --output results
  {run} --videos "a/*.mp4" --metrics mawe,scuts,clip --clip weights/st2v --prompts prompts.jsonl --output results
  {run} --compare results-a results-b --output comparison

a row of the paper's Table 1, for a model:
  {run} protocol --weights weights/st2v --clip weights/clip --output row

the streaming stage, in this order:
  {run} train-checker --checker runs/checker.npz --weights runs/apm/weights
  {run} generate --weights runs/apm/weights --checker runs/checker.npz --out runs/evaluation
  {run} report --results docs/small-model/results.json --training docs/small-model/training/*.json \
--output docs/small-model.md

the refinement stage, on the videos that generate kept:
  {run} refine --weights runs/refiner/weights --videos runs/evaluation/videos.npz --out runs/refinement
  {run} refinement-report --results docs/refinement/results.json --training docs/refinement/training/*.json \
--output docs/refinement.md

the claims of the paper, from the JSON of several studies (docs/evaluation.md):
  {run} claims-report --stored docs/evaluation --refinement docs/refinement/results.json \
--output docs/evaluation/claims.md

generate measures the videos that it makes; measure repeats this for the videos that were kept. Each study has its own
--help.
"""
TINY = {'channels': (8, 8), 'batch': 4, 'batches': 1}  # tests the program; too small to learn anything


def work(arguments: Namespace, run: Run) -> None:
    """Runs the study."""
    run.written, run.lower = 'what is finished stays', ('a smaller --batch',)
    if arguments.writes is None:  # several shards write to one folder, so what is locked is a file in it
        return arguments.study(arguments, run)
    writes = getattr(arguments, arguments.writes)
    with locked(writes):
        if arguments.writes == 'out':
            check_folder(writes)
        else:
            setattr(arguments, arguments.writes, check_file(writes))
        arguments.study(arguments, run)


def train_checker(arguments: Namespace, run: Run) -> None:
    """Trains a checker on clips of the world."""
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


def generate(arguments: Namespace, run: Run) -> None:
    """Makes, measures and draws long videos."""
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
        method=arguments.method,
        sheet=arguments.sheet,
        keep=arguments.keep,
        nearest=arguments.nearest,
        train_seed=arguments.train_seed,
        command=run.again,
        **chosen,
    )


def measure(arguments: Namespace, run: Run) -> None:
    """Measures kept videos."""
    _require_opencv()
    from st2v_jax.evaluation import generation

    generation.measure(arguments.videos, arguments.checker, arguments.output)


def refine(arguments: Namespace, run: Run) -> None:
    """Refines and measures kept or new videos."""
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


def report(arguments: Namespace, run: Run) -> None:
    """Writes the page about the small model."""
    from st2v_jax.evaluation import model_page, pages

    pages.write(model_page, arguments.results, arguments.training, arguments.output)


def refinement_report(arguments: Namespace, run: Run) -> None:
    """Writes the page about refinement."""
    from st2v_jax.evaluation import pages, refinement_page

    pages.write(refinement_page, arguments.results, arguments.training, arguments.output)


def claims_report(arguments: Namespace, run: Run) -> None:
    """Writes the page about the paper's claims."""
    from st2v_jax.evaluation import claims_page

    claims_page.write(arguments.stored, arguments.refinement, arguments.output)


def _require_opencv():
    """OpenCV measures motion; a missing one is reported before minutes of sampling, not after them."""
    require('evaluate', 'cv2')


class _Studies(options.Parser):
    """Takes options without the name of a study for those of `videos`."""

    def parse_args(self, args, namespace=None):
        ours = args and args[0].startswith('-') and args[0] not in ('-h', '--help', '--version')
        return super().parse_args(['videos', *args] if ours else args, namespace)


class _Help(options.HelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to the help of an option that has one."""

    def _get_help_string(self, action):
        bare = action.default is None or action.default is False or action.default == []
        return action.help if bare else super()._get_help_string(action)


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    parser = _Studies(prog, DESCRIPTION, epilog=EPILOG.format(run=prog), usage=f'{prog} [STUDY] [options]')
    studies = parser.add_subparsers(
        required=True, metavar='STUDY', prog=prog, title='studies', parser_class=options.Parser
    )

    name, text = 'videos', 'measure videos that are there, or compare methods; the name may be left out'
    added = studies.add_parser(
        name,
        help=text,
        description=f'{text[0].upper()}{text[1:]}.',
        formatter_class=_Help,
        usage=f'{prog} --videos PATH [options]',
    )
    added.set_defaults(study=evaluate_videos.work, writes=None)
    evaluate_videos.add_options(added.add_argument, added.add_mutually_exclusive_group(required=True))

    text = 'make the videos of the paper and measure them: a row of its Table 1'
    added = studies.add_parser(
        'protocol', help=text, description=f'{text[0].upper()}{text[1:]}.', formatter_class=_Help
    )
    added.set_defaults(study=evaluate_protocol.work, writes=None)
    evaluate_protocol.add_options(added.add_argument)

    text = 'make long videos by several methods and put them side by side'
    added = studies.add_parser('methods', help=text, description=f'{text[0].upper()}{text[1:]}.', formatter_class=_Help)
    added.set_defaults(study=evaluate_methods.work, writes=None)
    evaluate_methods.add_options(added.add_argument)

    def study(does, text, writes):  # the option that names what it writes; out is a folder
        name = does.__name__.replace('_', '-')
        added = studies.add_parser(name, help=text, description=f'{text[0].upper()}{text[1:]}.', formatter_class=_Help)
        added.set_defaults(study=does, writes=writes)
        return added.add_argument

    number, file, folder, scale = ({'metavar': name} for name in ('N', 'FILE', 'FOLDER', 'X'))

    add = study(train_checker, 'train the checker, which reads attributes of the object from clips', 'checker')
    add('--checker', type=Path, required=True, **file, help='npz file to write')
    add('--seconds', type=options.positive, default=80, **scale, help='time limit of the training, without compiling')
    add('--steps', type=options.at_least_1, default=100_000, **number, help='limit of the steps')
    add('--size', type=options.at_least_1, **number, help='pixels of a frame (default: those of the weights, or 128)')
    add('--batch', type=options.at_least_1, default=64, **number, help='clips of 16 frames per step')
    add('--weights', type=Path, **folder, help='a model whose autoencoder softens some of the clips')
    add('--seed', type=options.seed, default=1_000_003, **number, help='seed of the world and of the network')
    add('--tiny', action='store_true', help='use very few channels and clips, to test the program')

    add = study(generate, 'make long videos from unseen captions, measure them and draw sheets', 'out')
    add('--weights', type=Path, **folder, help='the model (default: the small model)')
    add('--checker', type=Path, required=True, **file, help='npz file of train-checker')
    add('--out', type=Path, required=True, **folder, help='folder for results.json, sheets and all videos')
    add('--captions', type=options.at_least_1, default=64, **number, help='number of videos')
    add('--frames', type=options.at_least_1, default=240, **number, help='frames per video')
    add('--seed', type=options.seed, default=2_000_003, **number, help='seed of the world and of the noise')
    add('--batch', type=options.at_least_1, default=32, **number, help='videos made at once')
    add('--dtype', choices=options.DTYPES, help='of the networks (default: what suits the device)')
    add(
        '--method',
        choices=evaluate_methods.WAYS,
        default='streaming',
        metavar='WAY',
        help=f'how a long video is made: {", ".join(evaluate_methods.WAYS)}',
    )
    add('--steps', type=options.at_least_1, **number, help='denoising steps of a chunk (default: as for st2v sample)')
    add('--profile', choices=('paper', 'release'), help='sampling rules (default: set by the model)')
    add(
        '--guidance-text', type=options.guidance, **scale, help='guidance scale of the text (default: set by the model)'
    )
    add(
        '--guidance-anchor',
        type=options.guidance,
        **scale,
        help='guidance scale of the anchor (default: set by the model)',
    )
    add('--first-guidance', type=options.guidance, **scale, help='of the first chunk (default: that of the text)')
    add(
        '--guidance-rescale',
        type=options.share,
        **scale,
        help='how far guidance is rescaled (default: set by the model)',
    )
    add('--sheet', type=options.at_least_1, default=8, **number, help='videos on the sheets')
    add(
        '--keep',
        type=options.at_least_0,
        default=8,
        **number,
        help='videos kept in videos.npz as JPEG frames, for measure and refine',
    )
    add(
        '--nearest', type=options.at_least_0, default=4096, **number, help='training scenes to compare with; 0 for none'
    )
    add('--train-seed', type=options.seed, default=0, **number, help='config.data.seed of the training run')

    add = study(measure, 'measure the videos that generate kept', 'output')
    add('--videos', type=Path, required=True, **file, help='videos.npz of generate')
    add('--checker', type=Path, required=True, **file, help='npz file of train-checker')
    add('--output', type=Path, required=True, **file, help='JSON file to write')

    add = study(report, 'write the page about the small model from stored JSON', 'output')
    add('--results', type=Path, required=True, **file, help='results.json of generate')
    add('--training', type=Path, nargs='*', default=[], **file, help='summary.json of each stage, in order')
    add('--output', type=Path, required=True, **file, help='Markdown file to write')

    add = study(refine, 'refine videos in all variants, measure and draw them', 'out')
    add('--weights', type=Path, **folder, help='a model with a Refiner (default: the small model)')
    add('--out', type=Path, required=True, **folder, help='folder for results.json and pictures')
    add('--videos', type=Path, **file, help='videos.npz of generate (default: the model makes videos)')
    add('--captions', type=options.at_least_1, default=16, **number, help='videos to refine, at most')
    add(
        '--world',
        type=options.at_least_1,
        default=8,
        **number,
        help='ground-truth videos of their scenes to refine as well',
    )
    add('--frames', type=options.at_least_1, default=240, **number, help='frames of each video that the model makes')
    add('--batch', type=options.at_least_1, default=32, **number, help='videos that the model makes at once')
    add('--seed', type=options.seed, default=2_000_003, **number, help='seed of the world and of the noise')
    add('--variants', nargs='+', metavar='NAME', help='some of paper, release, B and B+S (default: all)')
    add('--dtype', choices=options.DTYPES, help='of the networks (default: what suits the device)')
    add('--steps', type=options.at_least_1, **number, help='denoising steps (default: set by the model)')
    add(
        '--start', type=options.at_least_1, **number, help='noise level where SDEdit begins (default: set by the model)'
    )
    add('--guidance', type=options.guidance, **scale, help='guidance scale of the text (default: set by the model)')
    add('--rescale', type=options.share, **scale, help='how far guidance is rescaled (default: set by the model)')

    add = study(refinement_report, 'write the page about refinement from stored JSON', 'output')
    add('--results', type=Path, required=True, **file, help='results.json of refine')
    add('--training', type=Path, nargs='*', default=[], **file, help='summary.json of each stage')
    add('--output', type=Path, required=True, **file, help='Markdown file to write')

    add = study(claims_report, "write the page about the paper's claims from stored JSON", 'output')
    add('--stored', type=Path, required=True, **folder, help='with the files of methods --json and of hard scenes')
    add('--refinement', type=Path, required=True, **file, help='results.json of refine')
    add('--output', type=Path, required=True, **file, help='Markdown file to write')
    return parser
