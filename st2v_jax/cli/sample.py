"""`st2v sample --prompt "..."`: a long video from one sentence."""

import contextlib
import dataclasses
import os
import re
import textwrap
import warnings
from argparse import Namespace
from pathlib import Path

from st2v_jax import __version__, video_io
from st2v_jax.cli import in_session, options, outputs, schedules, starts
from st2v_jax.cli.progress import Progress, warn
from st2v_jax.cli.run import Run
from st2v_jax.cli.videos import check_words, enhanced, name_device, save
from st2v_jax.data.examples import EXAMPLES as PROMPTS
from st2v_jax.errors import BadInput
from st2v_jax.storage.names import fit
from st2v_jax.storage.text import read_lines
from st2v_jax.streaming.gate import OFF
from st2v_jax.streaming.prompt_schedule import PromptSchedule

# Lists of prompts that ship with the package, by the names that --prompts-file knows them under
SHIPPED_PROMPTS = {'paper': Path(__file__).parents[1] / 'assets' / 'prompts' / 'paper.txt'}

DESCRIPTION = """\
Makes a long video from one sentence, chunk by chunk. The first chunk has 16 frames; each later chunk adds 8, which
depend on the text, the last 8 frames and the first frame.

Without --weights the small model that ships with the package is used. It needs no download, and it knows only the words
that --list-words shows.
"""
EXAMPLES = """\
examples:
  {run} --prompt "{0}"
  {run} --num-frames 240 --output long.mp4 --prompt "{1}"
  {run} --output night.gif --seed 7 --prompt "{2}"
  {run} --start clip.mp4 --prompt "{0}"   # goes on from your clip; a picture is the first frame
  {run} --num-frames 144 --prompt "{0}" --at 72 "{1}"   # another prompt from frame 72 on
  {run} --prompts-file prompts.txt --output videos/clip.mp4   # writes clip-000.mp4, clip-001.mp4, ...
  {run} --prompts-file paper --weights weights/st2v           # the 50 prompts of the paper

more prompts that the small model understands:
  {more}

The ending of the output decides what is written: an .mp4, which grows while it is made and plays at any time; a .gif;
or single frames, to name.png or folder/. A file that --output names is replaced once the first frames are ready; a name
that you did not choose is never one that is taken. The prompt, the seed and all settings are stored in the file.

Compiled programs are kept in $ST2V_CACHE (default: ~/.cache/st2v_jax), so a second run starts faster.
"""


def work(arguments: Namespace, run: Run) -> None:
    """Checks the arguments, makes the videos and saves them."""
    if arguments.list_words:
        return _list_words(arguments)
    starts.check(arguments)
    options.gate(arguments, OFF)  # refuses now what makes no sense
    prompts, names = _prompts(arguments)
    if arguments.session is not None and not arguments.plan:
        return _in_sessions(prompts, names, arguments, run)
    if arguments.plan:
        for name in names:
            video_io.check_output(name)
        return _plan(arguments, prompts)
    with contextlib.ExitStack() as locks:
        if arguments.output is None:
            claims = [outputs.unused(name) for name in names]
        else:
            claims = [outputs.claimed(name) for name in names]
        jobs = [Job(schedule, locks.enter_context(claim)) for schedule, claim in zip(prompts, claims)]
        make_all(jobs, arguments, run)


def _in_sessions(prompts, names, arguments, run):
    """Makes or continues a session for each video; a shard takes each N-th one."""
    from st2v_jax.sessions.about import exists, writing
    from st2v_jax.sessions.session import Session

    if arguments.enhance:
        raise BadInput('--enhance does not go with --session: make the video, and then st2v session enhance')
    folders = [arguments.session]
    if arguments.prompts_file is not None:
        folders = [outputs.numbered(os.path.join(arguments.session, ''), number) for number in range(len(prompts))]
    files = names if arguments.output is not None else [os.path.join(folder, 'main.mp4') for folder in folders]
    number, count = arguments.shard or (1, 1)
    jobs = [Job(*job) for job in zip(prompts, files, folders, strict=True)][number - 1 :: count]
    with contextlib.ExitStack() as locks:
        for job in jobs:
            locks.enter_context(writing(job.session))
            if exists(job.session):
                Session(job.session)  # a damaged one is refused now
            if arguments.output is not None:
                locks.enter_context(outputs.claimed(job.output))
        make_all(jobs, arguments, run)


def make_all(jobs: 'list[Job]', arguments: Namespace, run: Run) -> None:
    """Makes the videos of the jobs one after the other; arguments: as of the parser of this verb."""
    from st2v_jax.refinement.scratch import check_room

    if arguments.enhance:
        for job in jobs:
            outputs.Draft(job.output).check()
    opened, start, contract = _opened(arguments, [job.prompts for job in jobs])
    if not arguments.quiet:
        for job in jobs:
            if job.prompts.changes:
                print(schedules.described(job.prompts, contract, arguments.num_frames), flush=True)
        name_device(arguments.dtype)
    model, enhancer = _load(opened, arguments)
    settings = _settings(arguments, model)
    if enhancer is not None:
        refinement = enhancer.settings(variant=settings.profile)
        check_room(enhancer.scratch_bytes(refinement, model.config.frame_size, arguments.num_frames))
    check_words(model.tokenizer, [prompt for job in jobs for prompt in job.prompts.prompts], arguments.negative_prompt)
    if settings.decode_frames > 1:
        run.lower += ('--decode-frames 1',)
    if settings.profile == 'paper' and model.config.apm is not None:
        run.lower += ('--profile release (two evaluations of the network per step instead of three)',)
    run.lower += ('--weights with a smaller model',)
    for job in jobs:
        _make(job, arguments, model, settings, enhancer, start, run)


@dataclasses.dataclass(frozen=True)
class Job:
    """One video to make."""

    prompts: PromptSchedule
    output: str
    session: str | None = None


def _make(job, arguments, model, settings, enhancer, start, run):
    """Makes one video, from `start` unless that is None, and writes it to its file."""
    from st2v_jax.sessions.branches import Recipe

    gate = options.gate(arguments, OFF)
    if job.session is not None:
        asked = Recipe(0, job.prompts, arguments.negative_prompt, arguments.seed, settings, gate)
        with Progress(job.prompts.prompt, quiet=arguments.quiet) as progress:
            made = in_session.begin(job.session, model, asked, arguments.num_frames, settings.decode_frames, start)
            return in_session.make_video(*made, job.output, arguments.fps, progress, run, only_new=arguments.only_new)
    prompts = schedules.spelled(job.prompts)
    metadata = {
        **prompts,
        'weights': arguments.weights,
        'negative_prompt': arguments.negative_prompt,
        'seed': arguments.seed,
        'num_frames': arguments.num_frames,
        'settings': dataclasses.asdict(settings),
        **({} if gate.action == 'off' else {'gate': dataclasses.asdict(gate)}),
        'command': run.parser.again(
            arguments,
            **prompts,
            prompts_file=None,
            output=job.output,
            seed=arguments.seed,
            num_frames=arguments.num_frames,
            steps=settings.steps,
            fps=arguments.fps,
        ),
        'st2v_jax': __version__,
    }
    progress = Progress(job.prompts.prompt, quiet=arguments.quiet)
    with progress, outputs.Draft(job.output) as draft:
        frames = _streamed(model, job, arguments, settings, gate, start, progress)
        if enhancer is None:
            return save(frames, job.output, arguments.fps, metadata, progress, run)
        refinement = enhancer.settings(variant=settings.profile)
        frames = _kept(frames, draft, arguments.fps, metadata, run)
        frames = enhanced(
            enhancer,
            frames,
            job.prompts,
            progress,
            refinement,
            seed=arguments.seed,
            negative_prompt=arguments.negative_prompt,
            contract=model.config.contract,
            profile=settings.profile,
            decode_frames=settings.decode_frames,
        )
        metadata = metadata | {'refinement': dataclasses.asdict(refinement)}
        save(frames, job.output, arguments.fps, metadata, progress, run)
        draft.remove()
    run.draft = None


def _streamed(model, job, arguments, settings, gate, start, progress):
    """Yields the frames that lead the video and those of the streaming stage, with a progress bar.

    The bar counts frames: each step of a chunk counts as an equal share of the frames that the chunk adds.
    """
    from st2v_jax.streaming.generate import generate
    from st2v_jax.streaming.own_start import opening

    total, contract = arguments.num_frames, starts.counted(model.config.contract, start)
    chunks, given = contract.chunks(total), starts.leading(None if arguments.only_new else start)
    led = sum(map(len, given))
    progress.stage(f'chunk 1/{chunks} compiling', led + total)

    def on_step(chunk, step, steps):
        new, made = (contract.stride, contract.frames_after(chunk)) if chunk else (contract.opening, 0)
        done = led + min(total, made + step / steps * new)
        progress.to(done, f'chunk {chunk + 1}/{chunks} step {step}/{steps}')

    yield from given
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'the prompt is longer')  # check_words has said so
        frames = generate(
            model,
            job.prompts,
            total,
            seed=arguments.seed,
            negative_prompt=arguments.negative_prompt,
            state=None if start is None else opening(model, start, seed=arguments.seed),
            on_step=on_step,
            settings=settings,
            gate=gate,
            tell=warn,
        )
    yield from frames


def _kept(frames, draft, fps, metadata, run):
    """Yields the frames unchanged and writes them to the draft, so that a stopped enhancement leaves a video."""
    video = None
    try:
        for some in frames:
            if video is None:
                run.draft = draft.make()
                video = video_io.VideoWriter(run.draft, fps, some.shape[1:3], metadata)
            video.write(some)
            yield some
    finally:
        if video is not None:
            video.close()


def _prompts(arguments):
    """The prompts of each video, and its name; names that the user did not choose may be taken already."""
    several = arguments.prompts_file is not None
    if arguments.shard is not None and not (several and arguments.session):
        raise BadInput(
            '--shard goes with --prompts-file and --session: parts that are complete are known by their sessions'
        )
    if several and (arguments.at or arguments.blend_frames):
        raise BadInput('--at and --blend-frames go with --prompt; in a --prompts-file, lines of JSON have them')
    prompts = _read_schedules(arguments.prompts_file) if several else [schedules.from_options(arguments)]
    if arguments.output is None:
        names = [f'{_slug(schedule.prompt)}-{arguments.seed}.mp4' for schedule in prompts]
    elif several:
        names = [outputs.numbered(arguments.output, number) for number in range(len(prompts))]
    else:
        names = [arguments.output]
    for name in names:
        video_io.check_rate(name, arguments.fps)
    return prompts, names


def _read_schedules(name):
    if Path(name).suffix.lower() != '.jsonl':
        return [PromptSchedule(prompt) for prompt in read_prompts(name)]
    try:
        found = schedules.from_file(name)
    except (OSError, ValueError) as error:
        raise BadInput(f'cannot read the prompts: {error}') from error
    if not found:
        raise BadInput(f'{name} has no prompts: write one JSON object per line')
    return found


def read_prompts(name: str) -> list[str]:
    """The prompts in a file of the user, or in one that ships with the package; raises BadInput if there are none."""
    file = Path(name) if name not in SHIPPED_PROMPTS or Path(name).is_file() else SHIPPED_PROMPTS[name]
    try:
        prompts = [line for _, line in read_lines(file) if not line.startswith('#')]
    except (OSError, ValueError) as error:
        raise BadInput(f'cannot read the prompts: {error}') from error
    if not prompts:
        raise BadInput(f'{name} has no prompts: write one per line; # starts a comment')
    return prompts


def _slug(prompt):
    words = re.sub(r'[^\w]+', '-', prompt.lower()).strip('-_')
    return fit(words, longest=60).rstrip('-') or 'video'


def _opened(arguments, prompts):
    """The opened model, what its videos start from, and how their chunks are counted, which the prompts fit."""
    from st2v_jax.open_model import open_model

    opened = open_model(arguments.weights)
    config = opened.config.sized(arguments.size)
    start = starts.read(arguments, opened, config)
    contract = starts.counted(config.contract, start)
    for schedule in prompts:
        schedule.check(arguments.num_frames, contract)
    return opened, start, contract


def _load(opened, arguments):
    """The model, and the enhancer or None."""
    from st2v_jax.streaming.generate import load

    model = load(opened, arguments.dtype, arguments.size)
    if not arguments.enhance:
        return model, None
    from st2v_jax.refinement.enhancer import load_enhancer

    return model, load_enhancer(opened, arguments.dtype)


def _plan(arguments, prompts):
    from st2v_jax.cli import needs
    from st2v_jax.planning.video import abstract_enhancer, abstract_model

    opened, *_ = _opened(arguments, prompts)
    name_device(arguments.dtype)
    model = abstract_model(opened, arguments.dtype, arguments.size)
    enhancer = abstract_enhancer(opened, arguments.dtype) if arguments.enhance else None
    needs.show(model, _settings(arguments, model), arguments.num_frames, len(prompts), enhancer)


def _settings(arguments, model):
    if arguments.num_frames > model.max_frames:
        raise BadInput(
            f'this model has no CAM and APM, so it makes at most {model.max_frames} frames, not {arguments.num_frames}'
        )
    if arguments.guidance_anchor is not None and model.config.apm is None:
        raise BadInput('--guidance-anchor needs a model with APM, and this one has none')
    return model.settings(**options.given(arguments, *options.SAMPLING, 'decode_frames'))


def _list_words(arguments):
    from st2v_jax.open_model import open_model

    tokenizer = open_model(arguments.weights).tokenizer()
    words = ' '.join(tokenizer.words) or 'This model has the whole vocabulary of CLIP, so every word can be used.'
    print(textwrap.fill(words, options.terminal_width(), break_on_hyphens=False))


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    parser = options.Parser(prog, DESCRIPTION, usage=f'{prog} --prompt TEXT [options]')
    parser.epilog = EXAMPLES.format(*PROMPTS[:3], run=prog, more='\n  '.join(PROMPTS[3:]))
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--prompt', metavar='TEXT', help='what the video shows, in one sentence')
    what.add_argument(
        '--prompts-file',
        metavar='FILE',
        help='a file with one prompt per line; # starts a comment. The name paper means the 50 prompts of the paper, '
        'which ship with the package. A .jsonl file has prompts that change',
    )
    what.add_argument('--list-words', action='store_true', help='print the words that the model knows, and exit')
    add = parser.add_argument
    add(
        '--num-frames',
        type=options.at_least_1,
        default=48,
        metavar='N',
        help='length of the video in frames (default: 48)',
    )
    schedules.add_options(add)
    starts.add_options(add)
    add(
        '--session',
        metavar='FOLDER',
        help='make the video in a session, which goes on after a crash and can be changed later: see st2v session',
    )
    add(
        '--shard',
        type=options.shard,
        metavar='I/N',
        help='with --prompts-file and --session: make the I-th of N parts only; other processes make the others',
    )
    add('--enhance', action='store_true', help='redraw the finished video, larger and sharper')
    add('--plan', action='store_true', help='print the time and memory needed on this device, and exit')
    add(
        '--output',
        metavar='PATH',
        help='video.mp4, video.gif, frame.png or folder/ (default: an .mp4 named after prompt and seed, with a '
        'number if that name is taken; main.mp4 in a session)',
    )
    add(
        '--seed',
        type=options.seed,
        default=0,
        metavar='N',
        help='random seed; each seed gives another video (default: 0)',
    )
    add('--fps', type=options.rate, default=8.0, metavar='X', help='frames per second of the file (default: 8)')
    add('--negative-prompt', default='', metavar='TEXT', help='what the video should not show')
    add('--weights', metavar='FOLDER', help='a model written by train or convert (default: the small model)')
    options.add_sampling(add)
    options.add_gate(add, action='off', tries=str(OFF.tries))
    add('--decode-frames', **{**options.DECODE_FRAMES, 'default': None})
    add('--dtype', choices=options.DTYPES, help='what networks compute in (default: what suits the device)')
    add('--quiet', action='store_true', help='print warnings and errors only')
    return parser
