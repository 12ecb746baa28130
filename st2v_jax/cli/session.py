"""`st2v session`: long videos that one works on, chunk by chunk."""

import contextlib
import dataclasses
import time
from argparse import Namespace
from pathlib import Path

from st2v_jax import video_io
from st2v_jax.cli import enhance as refining
from st2v_jax.cli import in_session, options, outputs, schedules, verify
from st2v_jax.cli.progress import Progress
from st2v_jax.cli.run import Run
from st2v_jax.cli.videos import check_words, name_device, save
from st2v_jax.errors import BadInput
from st2v_jax.tokenizer import in_short

DESCRIPTION = """\
A session is a folder that holds a video as a tree of chunks, made by st2v sample --session. A chunk is a pure function
of what was asked for, so a video can be gone on with after a crash, and parts of it can be made again, with another
seed or another prompt. Chunks before such a change stay the same bytes. Chunks are numbered from 0.
"""
EPILOG = """\
examples:
  st2v sample --prompt "a red ball bounces over a meadow" --session ball
  {run} show ball
  {run} extend ball --num-frames 96
  {run} reroll ball --from 3
  {run} branch ball --from 3 --name night --prompt "a red ball bounces over a meadow at night"
  {run} export ball --branch night --output night.mp4
  {run} enhance ball --branch night --output large.mp4
  {run} verify ball
  {run} prune ball --branch main-3-seed1

Chunks before a change are shared by all branches; what was asked for once is never computed again. A command that was
killed goes on when it is repeated. docs/sessions.md says more.
"""


def work(arguments: Namespace, run: Run) -> None:
    """Runs the verb of the session."""
    arguments.does(arguments, run)


def show(arguments: Namespace, run: Run) -> None:
    """Prints the tree, and draws a contact sheet."""
    from st2v_jax.sessions.session import Session

    session = Session(arguments.folder)
    seconds = {entry['chunk']: entry for entry in session.journal() if 'chunk' in entry}
    height, width = session.about['frame_size']
    print(
        f'{session.folder}: {height}x{width}, {session.about["dtype"]}, {session.about["source"] or "the small model"}'
    )
    seen = {}
    for name in session.names():
        branch = session.branch(name)
        shared = sum(id in seen for id in branch.chunks)
        origin = f', {shared} of them shared with {seen[branch.chunks[shared - 1]]}' if shared else ''
        made = [seconds[id] for id in branch.chunks[shared:] if id in seconds]
        told = f', made in {sum(entry["seconds"] for entry in made):.1f} s' if made else ''
        again = sum(draw > 0 for draw in branch.draws)
        told = (f', {again} of them drawn again' if again else '') + told
        ended = f' until {time.strftime("%Y-%m-%d %H:%M", time.localtime(made[-1]["time"]))}' if made else ''
        print(f'{name}: {len(branch.chunks)} chunks{origin}, {branch.num_frames} frames asked for{told}{ended}')
        for recipe in branch.recipes:
            if recipe.start or not shared:
                print(f'  from chunk {recipe.start}: {_told(recipe)}')
        seen |= {id: name for id in branch.chunks if id not in seen}
    if arguments.sheet:
        _sheet(arguments, session.names())


def _told(recipe):
    words = '; '.join(
        [f'"{recipe.prompts.prompt}"', *(f'at frame {at} "{text}"' for at, text in recipe.prompts.changes)]
    )
    without = f', without "{in_short(recipe.negative_prompt)}"' if recipe.negative_prompt else ''
    return f'{words}{without}, seed {recipe.seed}, {recipe.settings.steps} steps'


def _sheet(arguments, names):
    """Draws a row for each branch, a column for the first frame of each chunk of the shortest; at most 10."""
    import numpy as np

    from st2v_jax.evaluation.sheets import contact_sheet
    from st2v_jax.storage.atomic import replacing
    from st2v_jax.storage.places import check_file

    file = check_file(arguments.sheet)
    session = in_session.open_session(arguments.folder, arguments.weights, arguments.decode_frames)
    videos = [[video_io.to_uint8(frames) for frames in session.frames(name)] for name in names]
    drawn = [(name, np.concatenate(video)) for name, video in zip(names, videos) if video]
    if not drawn:
        raise BadInput(f'{arguments.folder} has no chunks yet')
    shortest = min(len(video) for _, video in drawn)
    numbers = sorted({round(number) for number in np.linspace(1, shortest, min(10, shortest))})
    labels = [f'{name}: {_told(session.branch(name).recipes[-1])}' for name, _ in drawn]
    with replacing(file) as opened:
        contact_sheet([video for _, video in drawn], numbers, labels).save(opened, 'PNG')
    print(f'saved {arguments.sheet}')


def extend(arguments: Namespace, run: Run) -> None:
    """Makes a branch longer."""
    with _opened(arguments) as session:
        changes = _changes(arguments, session, session.branch(arguments.branch).recipes[-1])
        _make(arguments, session, session.append(arguments.branch, **changes), run)


def reroll(arguments: Namespace, run: Run) -> None:
    """Makes the chunks from one on again, with another seed."""
    with _opened(arguments) as session:
        seed = arguments.seed
        if seed is None:
            seed = session.unused_seed(arguments.branch, arguments.first)
        name = arguments.name or f'{arguments.branch}-{arguments.first}-seed{seed}'
        _make(arguments, session, session.fork(arguments.branch, arguments.first, name=name, seed=seed), run)


def branch(arguments: Namespace, run: Run) -> None:
    """Makes a branch of another prompt or of other settings."""
    with _opened(arguments) as session:
        origin = session.branch(arguments.branch)
        changes = _changes(arguments, session, origin.recipe(arguments.first))
        made = session.fork(arguments.branch, arguments.first, name=arguments.name, **changes)
        _make(arguments, session, made, run)


def export(arguments: Namespace, run: Run) -> None:
    """Writes the file of a branch."""
    output = arguments.output or str(Path(arguments.folder, f'{arguments.branch}.mp4'))
    video_io.check_rate(output, arguments.fps)
    with outputs.claimed(output):
        session = in_session.open_session(arguments.folder, arguments.weights, arguments.decode_frames)
        with Progress(arguments.branch, quiet=arguments.quiet) as progress:
            fps, only_new = arguments.fps, arguments.only_new
            in_session.export(session, arguments.branch, output, fps, progress, run, only_new=only_new)


def enhance(arguments: Namespace, run: Run) -> None:
    """Makes the enhanced video of a branch, and its file."""
    from st2v_jax.cli.videos import enhanced as watched
    from st2v_jax.refinement.enhancer import load_enhancer
    from st2v_jax.sessions import enhanced

    output = arguments.output or str(Path(arguments.folder, f'{arguments.branch}-enhanced.mp4'))
    video_io.check_rate(output, arguments.fps)
    with outputs.claimed(output), _opened(arguments) as session:
        enhancer = load_enhancer(session.model.source, session.about['dtype'])
        settings = refining.settings_of(arguments, enhancer)
        profile = arguments.profile or enhancer.config.profile
        asked = {'seed': arguments.seed, 'negative_prompt': arguments.negative_prompt, 'profile': profile}
        node = enhanced.node(session, arguments.branch, enhancer, settings, **asked)
        check_words(enhancer.tokenizer, node.prompts.prompts, arguments.negative_prompt)
        run.written = f'what is done stays in {node.folder}'
        run.lower = ('--decode-frames 1',) * (arguments.decode_frames > 1)
        about = {**schedules.spelled(node.prompts), 'enhanced': {'video': node.leaf, **node.made_of}}
        with Progress(arguments.branch, quiet=arguments.quiet) as progress:
            pieces = watched(
                enhancer,
                session.frames(arguments.branch),
                node.prompts,
                progress,
                settings,
                decode_frames=arguments.decode_frames,
                **enhanced.where(node),
                **asked,
            )
            save(pieces, output, arguments.fps, about, progress, run)


def prune(arguments: Namespace, run: Run) -> None:
    """Removes what no branch leads to."""
    from st2v_jax.sessions import enhanced
    from st2v_jax.sessions.about import writing
    from st2v_jax.sessions.session import Session

    session = Session(arguments.folder)
    with writing(arguments.folder):
        if arguments.branch is not None:
            session.remove(arguments.branch)
        count, size = session.prune()
        nodes = enhanced.prune(session)
    print(f'removed {count} chunks ({size / 1e6:.1f} MB)' + f' and {nodes} enhanced videos' * (nodes > 0))


@contextlib.contextmanager
def _opened(arguments):
    """The session of a verb that changes it, locked before its model is loaded."""
    from st2v_jax.sessions.about import writing
    from st2v_jax.sessions.session import Session

    about = Session(arguments.folder).about  # what is not one is refused before anything is made there
    with writing(arguments.folder):
        if not arguments.quiet:
            name_device(about['dtype'])
        yield in_session.open_session(arguments.folder, arguments.weights, arguments.decode_frames)


def _make(arguments, session, branch, run):
    """Makes what is missing of a branch, and says how to see it."""
    if arguments.num_frames is not None:
        branch = session.append(branch.name, num_frames=arguments.num_frames)
    prompts = [prompt for recipe in branch.recipes for prompt in recipe.prompts.prompts]
    check_words(session.model.tokenizer, prompts, branch.recipes[-1].negative_prompt)
    run.lower = ('--decode-frames 1',) * (session.decode_frames > 1)
    with Progress(branch.name, quiet=arguments.quiet) as progress:
        in_session.make(session, branch, progress, run)
    if not arguments.quiet:
        there = len(session.branch(branch.name).chunks)
        see = f'st2v session export {arguments.folder} --branch {branch.name}'
        print(f'{branch.name} has {there} chunks; its video: {see}', flush=True)


def _changes(arguments, session, recipe):
    """The fields of a Recipe that the options change."""
    changes = options.given(arguments, 'negative_prompt', 'seed')
    if arguments.prompt is not None:
        changes['prompts'] = schedules.from_options(arguments)
    elif arguments.at:
        raise BadInput('--at goes with --prompt')
    given = options.given(arguments, *options.SAMPLING)
    gate = options.gate(arguments, recipe.gate)
    if gate != recipe.gate:
        changes['gate'] = gate
    if given:
        from st2v_jax.streaming.settings import PROFILES

        also = {'steps': 'first_steps', 'guidance_text': 'first_guidance'}
        profile = PROFILES[given['profile']] if 'profile' in given else {}
        first = {of_first: given[name] for name, of_first in also.items() if name in given}
        changes['settings'] = dataclasses.replace(recipe.settings, **profile, **{**first, **given})
    return changes


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    parser = options.Parser(prog, DESCRIPTION, epilog=EPILOG.format(run=prog), usage=f'{prog} VERB FOLDER [options]')
    verbs = parser.add_subparsers(required=True, metavar='VERB', prog=prog, title='verbs', parser_class=options.Parser)

    def verb(does, text, *, name=None):
        added = verbs.add_parser(name or does.__name__, help=text, description=f'{text[0].upper()}{text[1:]}.')
        added.set_defaults(does=does)
        added.add_argument('folder', metavar='FOLDER', help='the session')
        weights = 'the weights, where they lie elsewhere by now (default: those that the session was made with)'
        if does is not prune:
            added.add_argument('--weights', metavar='FOLDER', help=weights)
            added.add_argument('--decode-frames', **options.DECODE_FRAMES)
        return added.add_argument

    def making(add):
        add('--num-frames', type=options.at_least_1, metavar='N', help='length of the branch (default: as it is)')
        add('--quiet', action='store_true', help='print warnings and errors only')

    def asking(add):
        add('--prompt', metavar='TEXT', help='what the chunks to make show (default: as before)')
        schedules.add_options(add)
        add('--negative-prompt', metavar='TEXT', help='what they should not show (default: as before)')
        add('--seed', type=options.seed, metavar='N', help='random seed (default: as before)')
        options.add_sampling(add)
        options.add_gate(add, action='as before', tries='as before')

    def forking(add):
        add('--branch', default='main', metavar='NAME', help='the branch to begin with (default: main)')
        add('--from', dest='first', type=options.at_least_0, required=True, metavar='K', help='the first chunk to make')
        add('--name', metavar='NAME', help='of the new branch (default: made of branch and chunk)')

    add = verb(show, 'show the tree: branches, prompts, seeds, times')
    add('--sheet', metavar='FILE', help='also draw frames of each branch to this PNG file')

    add = verb(extend, 'make a branch longer, also with another prompt from its end on')
    add('--branch', default='main', metavar='NAME', help='the branch (default: main)')
    asking(add)
    making(add)

    add = verb(reroll, 'make the chunks from one on again with another seed, as a branch')
    forking(add)
    add('--seed', type=options.seed, metavar='N', help='the seed (default: the next one that was not tried)')
    making(add)

    add = verb(branch, 'make a branch of another prompt or of other settings from one chunk on')
    forking(add)
    asking(add)
    making(add)

    add = verb(export, 'write the video of a branch')
    add('--branch', default='main', metavar='NAME', help='the branch (default: main)')
    add('--output', metavar='PATH', help='video.mp4, video.gif or frames/ (default: NAME.mp4 in the session)')
    add('--fps', type=options.rate, default=8.0, metavar='X', help='frames per second of the file (default: 8)')
    add('--only-new', action='store_true', help='leave out the frames of the clip that the branch goes on from')
    add('--quiet', action='store_true', help='print warnings and errors only')

    add = verb(enhance, 'make a branch larger and sharper; after a kill the same command goes on')
    add('--branch', default='main', metavar='NAME', help='the branch, which is complete (default: main)')
    add('--output', metavar='PATH', help='video.mp4, video.gif or frames/ (default: NAME-enhanced.mp4 in the session)')
    add('--fps', type=options.rate, default=8.0, metavar='X', help='frames per second of the file (default: 8)')
    refining.add_settings(add)
    add('--quiet', action='store_true', help='print warnings and errors only')

    verify.add_options(
        verb(verify.work, 'make chunks again and compare them with those that are stored', name='verify')
    )

    add = verb(prune, 'remove the chunks that no branch leads to')
    add('--branch', metavar='NAME', help='remove this branch first')
    return parser
