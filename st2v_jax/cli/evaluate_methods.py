"""`st2v evaluate methods`: long videos of the small world by several methods, side by side.

All methods get the same captions and seeds. Each has a folder of its own in --output, as `st2v evaluate generate` makes
it; what is complete is neither made nor measured again. comparison.md has the means of what the checker sees at the end
of the videos and of the metrics, and the paired differences from the first method. --json stores the numbers of every
video, with those of earlier windows, for the page of `st2v evaluate claims-report`.
"""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import NamedTuple

from st2v_jax.cli import evaluate_videos, options
from st2v_jax.cli.run import Run
from st2v_jax.errors import BadInput
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_folder

WAYS = ('streaming', 'no-anchor', 'apart', 'last-frame', 'free-noise')  # as baselines.py has them, for --help
AT_ONCE = 6  # videos that are measured at the same time; each reads its file in a thread
METRICS = 'scuts,mawe,steadiness,ssim,sharpness'
SAMPLING = ('steps', 'profile', 'guidance_text', 'guidance_anchor')  # options that are handed on where they are given


class Method(NamedTuple):
    """A method to compare.

    Attributes:
      name: of its folder and in the tables.
      way: one of `baselines.METHODS`.
      weights: its model; None is the small model.
    """

    name: str
    way: str
    weights: str | None


def method(text: str) -> Method:
    """'ours', 'ours=streaming' or 'ours=streaming:FOLDER' as a Method."""
    name, _, rest = text.partition('=')
    way, _, weights = rest.partition(':')
    if not name or '/' in name or name.startswith('.') or (way or WAYS[0]) not in WAYS:
        raise ArgumentTypeError(f'must be NAME=WAY:WEIGHTS, where a way is one of {", ".join(WAYS)}, not {text!r}')
    return Method(name, way or WAYS[0], weights or None)


def work(arguments: Namespace, run: Run) -> None:
    """Makes, measures and compares."""
    run.written, run.lower = 'what is finished stays', ('a smaller --batch',)
    names = [each.name for each in arguments.method]
    if len(names) < 2 or len(set(names)) < len(names):
        raise BadInput(f'two or more --method with different names are compared, not {", ".join(names)}')
    instruments = evaluate_videos.chosen(arguments)
    check_folder(arguments.output)
    from st2v_jax.evaluation import tables
    from st2v_jax.open_model import open_model

    contracts = {each.name: open_model(each.weights).config.contract for each in arguments.method}
    with locked(Path(arguments.output, 'comparison.md')):
        found = {
            each.name: _records(each, contracts[each.name], instruments, arguments, run) for each in arguments.method
        }
        tables.compare(arguments.output, {name: records for name, (_, records) in found.items()})
        if arguments.json is not None:
            _store(found, arguments, run)
    print(f'comparison: {Path(arguments.output, "comparison.md")}')


def _store(found, arguments, run):
    """Writes --json and its pictures; found is {name: (results.json, records)}."""
    from st2v_jax.evaluation import side_by_side

    studies = [study for study, _ in found.values()]
    made = {name: studies[0]['made'][name] for name in ('date', 'device', 'jax', 'dtype', 'captions', 'frames', 'seed')}
    made |= {'command': run.again, 'prompts': [video['caption'] for video in studies[0]['videos']]}
    methods = {
        each.name: {
            'way': each.way,
            'weights': each.weights or 'the small model',
            'settings': study['made']['settings'],
            'seconds': round(study['made']['seconds']),
            'numbers': side_by_side.numbers(study, records),
        }
        for each, (study, records) in zip(arguments.method, found.values(), strict=True)
    }
    videos = {name: [Path(arguments.output, name, 'videos', record['file']) for record in records]
              for name, (_, records) in found.items()}  # fmt: skip
    side_by_side.write(arguments.json, made, methods, videos)
    print(f'numbers of every video: {arguments.json}')


def _records(method, contract, instruments, arguments, run):
    """(results.json, records of the videos with what the checker sees at their end) of a method."""
    from st2v_jax.evaluation import generation, given_videos, results
    from st2v_jax.evaluation.baselines import chunk_frames
    from st2v_jax.evaluation.instruments import steadiness
    from st2v_jax.storage.text import read_object

    out = Path(arguments.output, method.name)
    print(f'{method.name}: {method.way}, {method.weights or "the small model"}', flush=True)
    generation.study(
        out,
        arguments.checker,
        folder=method.weights,
        captions=arguments.captions,
        frames=arguments.frames,
        seed=arguments.seed,
        batch=arguments.batch,
        dtype=arguments.dtype,
        method=method.way,
        sheet=min(8, arguments.captions),
        keep=0,
        nearest=0,
        train_seed=0,
        command=run.again,
        **options.given(arguments, *SAMPLING),
    )
    own = steadiness(chunk_frames(method.way, contract))
    instruments = [own if each.name == own.name else each for each in instruments]
    videos = given_videos.find([str(out / 'videos')])
    evaluate_videos.measure_all(out, videos, instruments, quiet=arguments.quiet, at_once=AT_ONCE)
    study, found = read_object(out / 'results.json'), results.read(out)[0]
    about = {'checker': study['checker'], 'frames': study['made']['frames']}
    records = []
    for record, seen in zip((found[file] for file in sorted(found)), study['videos'], strict=True):
        last = {'settings': about, 'versions': {}, 'numbers': seen['at'][max(seen['at'], key=int)]}
        records.append(record | {'measured': {'last_window': last} | record['measured']})
    return study, records


def add_options(add) -> None:
    """Adds the options of the study."""
    number = {'metavar': 'N'}
    text = f'a name, how videos are made ({", ".join(WAYS)}) and the model (default: the small model); two or more'
    add('--method', type=method, action='append', required=True, metavar='NAME=WAY:WEIGHTS', help=text)
    add('--checker', type=Path, required=True, metavar='FILE', help='npz file of train-checker')
    add('--output', type=Path, required=True, metavar='FOLDER', help='folder for videos and results')
    add('--json', type=Path, metavar='FILE', help='also store the numbers of every video there, and pictures beside it')
    add('--captions', type=options.at_least_1, default=64, **number, help='number of videos of each method')
    add('--frames', type=options.at_least_1, default=240, **number, help='frames per video')
    add('--seed', type=options.seed, default=2_000_003, **number, help='seed of the world and of the noise')
    add('--batch', type=options.at_least_1, default=32, **number, help='videos made at once')
    add('--dtype', choices=options.DTYPES, help='of the networks (default: what suits the device)')
    add('--steps', type=options.at_least_1, **number, help='denoising steps of a chunk (default: as for st2v sample)')
    add('--profile', choices=('paper', 'release'), help='sampling rules (default: set by the model)')
    for name, what in (('text', 'text'), ('anchor', 'anchor')):
        add(f'--guidance-{name}', type=options.guidance, metavar='X', help=f'guidance scale of the {what}')
    add('--metrics', default=METRICS, metavar='NAMES', help=f'some of {",".join(evaluate_videos.METRICS)}')
    evaluate_videos.add_needs(add)
    add('--size', type=options.frame_size, metavar='HxW', help='resize all frames first (default: as each metric says)')
    add('--quiet', action='store_true', help='no bars')
