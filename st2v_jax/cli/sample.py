"""`python sample.py --prompt "..."`: a long video from one sentence.

Exit codes: 0 done, 1 the device ran out of memory or the disk failed, 2 bad input (nothing was written), 130 Ctrl-C
(what was made so far is saved and plays).
"""

import argparse
import contextlib
import dataclasses
import os
import re
import shlex
import sys
import textwrap
import time
import warnings
from pathlib import Path

from st2v_jax import __version__, video_io

DESCRIPTION = """\
Makes a long video from one sentence, chunk by chunk: 16 frames from the text, then 8 more at a time, each chunk from
the text, the last 8 frames and the first frame. Without --weights it uses the small model that comes with the package,
which knows the words of --list-words and needs no download.
"""
EXAMPLES = """\
examples:
  {run} --prompt "{0}"
  {run} --prompt "{1}" --num-frames 240 --output long.mp4
  {run} --prompt "{2}" --output night.gif --seed 7
  {run} --prompts-file prompts.txt --output "videos/clip.mp4"   # clip-000.mp4, clip-001.mp4, ...
more prompts that the small model understands:
  {more}
The output's ending decides: .mp4 grows while it is made and plays at any time; .gif; name.png or folder/ for single
frames. An existing file is replaced when the first frames are there. The prompt, the seed and all settings are stored
in the file. Compiled programs are kept in $ST2V_CACHE (default ~/.cache/st2v_jax): the second run starts faster.
"""


class BadInput(Exception):
    """What the user asked for cannot be done; the message is the one line they see."""


def main(argv=None) -> int:
    """Parse, check, sample, report; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(argv)
    try:
        if arguments.list_words:
            return _list_words(arguments)
        jobs = _jobs(arguments)
        model = _load(arguments)
        settings = _settings(arguments, model)
        arguments.steps = settings.steps  # the command that makes the video again names them
        _warn_about_words(jobs, arguments, model)
    except (BadInput, video_io.OutputError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail('nothing was written', 130, 'stopped')
    for job in jobs:
        code = _make(job, arguments, model, settings)
        if code:
            return code
    return 0


@dataclasses.dataclass(frozen=True)
class Job:
    """One video to make."""

    prompt: str
    output: str


def _make(job, arguments, model, settings):
    """Samples one video into its file; returns the exit code."""
    size = (model.config.image_size,) * 2
    metadata = {
        'prompt': job.prompt,
        'negative_prompt': arguments.negative_prompt,
        'seed': arguments.seed,
        'num_frames': arguments.num_frames,
        'settings': dataclasses.asdict(settings),
        'command': _command(job, arguments),
        'st2v_jax': __version__,
    }
    video = None
    try:
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(Progress(job, arguments, model, settings))
            for frames in _generate(model, job, arguments, settings, progress.step):
                if video is None:  # only now: a run that fails earlier leaves an existing file as it was
                    video = stack.enter_context(video_io.VideoWriter(job.output, arguments.fps, size, metadata))
                video.write(frames)
                progress.saved(video.frames)
    except KeyboardInterrupt:
        written = (
            f'{video.frames} of {arguments.num_frames} frames are in {job.output}' if video else 'nothing was written'
        )
        return _fail(f'{written}; again: {_command(job, arguments)}', 130, 'stopped')
    except video_io.OutputError as error:
        return _fail(error, 2)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return _fail(_out_of_memory(arguments, settings), 1)
    except OSError as error:
        return _fail(f'{job.output}: {error.strerror or error}', 1)
    if not arguments.quiet:
        length = f'{video.frames} frames, {video.frames / arguments.fps:.1f} s'
        print(f'saved {job.output} ({length}); again: {_command(job, arguments)}', flush=True)
    return 0


def _generate(model, job, arguments, settings, on_step):
    from st2v_jax.text_to_video import generate

    options = dict(seed=arguments.seed, negative_prompt=arguments.negative_prompt, on_step=on_step)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # a cut prompt has been reported in this program's own words
        return generate(model, job.prompt, arguments.num_frames, **options, **dataclasses.asdict(settings))


def _out_of_memory(arguments, settings):
    lower = []
    if settings.decode_frames > 1:
        lower.append('--decode-frames 1')
    if settings.profile == 'paper':
        lower.append('--profile release (guides with two evaluations a step instead of three)')
    lower.append('--weights with a smaller model')
    return f'out of device memory; lower what it needs: {", or ".join(lower)}. The number of frames makes no difference'


class Progress:
    """The bar: chunk, step, frames per second and time left. Does nothing when quiet.

    A chunk's steps are counted in frames: a frame is a share of the steps of the chunk that brings it.
    """

    def __init__(self, job, arguments, model, settings):
        from st2v_jax.streaming.stream import chunk_count

        self._config, self._total = model.config, arguments.num_frames
        self._chunks = chunk_count(model.config, arguments.num_frames)
        self._quiet, self._label = arguments.quiet, textwrap.shorten(job.prompt, 24, placeholder='...')
        self._began, self._bar = time.monotonic(), None

    def __enter__(self):
        if not self._quiet:
            from tqdm import tqdm

            interval = 0.2 if sys.stderr.isatty() else 5.0  # a log file needs no animation
            layout = '{desc} {percentage:3.0f}%|{bar:20}|{postfix} [{elapsed}<{remaining}]'
            self._bar = tqdm(total=self._total, bar_format=layout, mininterval=interval, smoothing=0.1)
            self._bar.set_description_str(f'"{self._label}" chunk 1/{self._chunks} compiling', refresh=True)
        return self

    def __exit__(self, *exception):
        if self._bar is not None:
            self._bar.close()

    def step(self, chunk, step, steps):
        if self._bar is None:
            return
        done = min(self._total, self._frames_before(chunk) + step / steps * self._new_frames(chunk))
        speed = done / (time.monotonic() - self._began)
        label = f'"{self._label}" chunk {chunk + 1}/{self._chunks} step {step}/{steps}'
        self._bar.set_description_str(label, refresh=False)
        self._bar.set_postfix_str(f'{speed:.2f} frames/s', refresh=False)
        self._bar.update(done - self._bar.n)

    def saved(self, frames):
        if self._bar is not None:
            self._bar.update(frames - self._bar.n)
            self._bar.refresh()

    def _frames_before(self, chunk):
        return 0 if chunk == 0 else self._config.frames + (chunk - 1) * self._new_frames(chunk)

    def _new_frames(self, chunk):
        return self._config.frames - (self._config.memory if chunk else 0)


def _jobs(arguments):
    """The prompts with their output files, checked; raises BadInput or OutputError."""
    prompts = [arguments.prompt]
    if arguments.prompts_file is not None:
        try:
            lines = Path(arguments.prompts_file).read_text(encoding='utf-8').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f'cannot read the prompts: {error}') from error
        prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith('#')]
        if not prompts:
            raise BadInput(f'{arguments.prompts_file} holds no prompt: one a line, # begins a comment')
    if not all(prompt.strip() for prompt in prompts):
        raise BadInput('the prompt is empty: say in a sentence what the video shows')
    outputs = _outputs(prompts, arguments)
    for output in outputs:
        video_io.check_output(output)
    return [Job(prompt, output) for prompt, output in zip(prompts, outputs)]


def _outputs(prompts, arguments):
    if arguments.output is None:
        names = [f'{_slug(prompt)}-{arguments.seed}.mp4' for prompt in prompts]
        return names if len(set(names)) == len(names) else [_numbered(name, i) for i, name in enumerate(names)]
    if arguments.prompts_file is None:
        return [arguments.output]
    return [_numbered(arguments.output, i) for i in range(len(prompts))]


def _numbered(output, number):
    """The number of the prompt goes before the ending: clip.mp4 -> clip-003.mp4, frames/ -> frames-003/."""
    if output.endswith('/') or os.path.isdir(output):
        return f'{output.rstrip("/")}-{number:03d}/'
    root, ending = os.path.splitext(output)
    return f'{root}-{number:03d}{ending}'


def _slug(prompt):
    words = re.sub(r'[^\w]+', '-', prompt.lower()).strip('-_')
    return words[:60].rstrip('-') or 'video'


def _command(job, arguments):
    """The command that makes this video again."""
    program = Path(sys.argv[0]).name
    parts = ['python', 'sample.py'] if program != 'st2v-sample' else ['st2v-sample']
    again = vars(arguments) | {'prompt': job.prompt, 'prompts_file': None, 'output': job.output}
    for name in ('prompt', 'num_frames', 'seed', 'steps', 'fps', *_OPTIONAL, 'output'):
        if again[name] is not None and again[name] != _OPTIONAL.get(name):
            parts += [f'--{name.replace("_", "-")}', f'{again[name]:g}' if name == 'fps' else str(again[name])]
    return shlex.join(parts)


# Options that the repeated command names only where they differ from this
_OPTIONAL = {
    'negative_prompt': '',
    'weights': None,
    'profile': None,
    'guidance_text': None,
    'guidance_anchor': None,
    'eta': None,
    'decode_frames': None,
}


def _load(arguments):
    """Names the device, turns the compilation cache on, loads the model."""
    from st2v_jax.weights import WeightsError

    try:
        device = _device()
        if not arguments.quiet:
            print(f'device: {device}', flush=True)
        _keep_compiled_programs()
        from st2v_jax.text_to_video import load

        return load(arguments.weights)
    except WeightsError as error:
        raise BadInput(error) from error


def _settings(arguments, model):
    names = ('steps', 'profile', 'guidance_text', 'guidance_anchor', 'eta', 'decode_frames')
    chosen = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    try:
        return model.settings(**chosen)
    except ValueError as error:
        raise BadInput(error) from error


def _device():
    import jax

    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        raise BadInput(f'no device to compute on: {str(error).splitlines()[0]}') from error
    kind = devices[0].device_kind
    if devices[0].platform == 'cpu':
        return f'CPU with {os.cpu_count()} cores, computing in float32'
    return f'{kind} ({devices[0].platform}), computing in bfloat16'


def _keep_compiled_programs():
    """jax's persistent compilation cache; a folder named by jax's own setting is left in charge."""
    import jax

    folder = os.environ.get('ST2V_CACHE')
    if folder is None:
        if jax.config.jax_compilation_cache_dir:
            return
        folder = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'st2v_jax')
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return  # a home that cannot be written costs time, not the video
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


def _warn_about_words(jobs, arguments, model):
    for prompt in dict.fromkeys([*(job.prompt for job in jobs), arguments.negative_prompt]):
        unknown, lost = model.tokenizer.unknown_words(prompt), model.tokenizer.lost(prompt)
        if unknown:
            _warn(f'this model never saw {", ".join(unknown)} and will ignore it; --list-words shows what it knows')
        if lost:
            _warn(f'the prompt is longer than 77 tokens and was cut; lost: "{lost}"')


def _list_words(arguments):
    from st2v_jax import weights

    try:
        tokenizer = weights.load_tokenizer(weights.SHIPPED if arguments.weights is None else arguments.weights)
    except weights.WeightsError as error:
        raise BadInput(error) from error
    words = ' '.join(tokenizer.words) or 'This model has all of the vocabulary of CLIP: every word has tokens.'
    print(textwrap.fill(words, 100, break_on_hyphens=False))
    return 0


def _warn(message):
    print(f'warning: {message}', file=sys.stderr, flush=True)


def _fail(error, code, kind='error'):
    """Says what went wrong in one line: of a list of complaints the first and how many more there are."""
    first, *complaints = (line.strip() for line in str(error).splitlines())
    more = f' (and {len(complaints) - 1} more)' if len(complaints) > 1 else ''
    print(f'{kind}: {" ".join([first, *complaints[:1]])}{more}', file=sys.stderr, flush=True)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f'error: {message} (see --help)\n')

    def format_help(self):
        from st2v_jax.data.world import EXAMPLES as prompts  # here: it takes a second that only --help should pay

        run = 'st2v-sample' if self.prog == 'st2v-sample' else 'python sample.py'
        self.epilog = EXAMPLES.format(*prompts[:3], run=run, more='\n  '.join(prompts[3:]))
        return super().format_help()


def _parser():
    parser = _Parser(
        prog=Path(sys.argv[0]).name if Path(sys.argv[0]).name == 'st2v-sample' else 'sample.py',
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--prompt', help='what the video shows, in a sentence')
    what.add_argument('--prompts-file', metavar='FILE', help='several prompts, one a line; # begins a comment')
    what.add_argument('--list-words', action='store_true', help='show the words that the model knows, and stop')
    add = parser.add_argument
    add('--num-frames', type=_at_least_1, default=48, metavar='N', help='frames in the video, any number (48)')
    add('--output', metavar='PATH', help='video.mp4, video.gif, frame.png or folder/ (default: from prompt and seed)')
    add('--seed', type=_seed, default=0, metavar='N', help='another seed, another video of the same prompt (0)')
    add('--steps', type=_at_least_1, metavar='N', help='denoising steps of each chunk (default: 20)')
    add('--fps', type=_positive, default=8.0, metavar='X', help='frames per second of the file (8)')
    add('--negative-prompt', default='', metavar='TEXT', help='what the video should not show')
    add('--weights', metavar='FOLDER', help='another model: a folder that train.py or convert.py wrote')
    add('--guidance-text', type=_number, metavar='X', help='how strictly to follow the text (default: the model says)')
    add('--guidance-anchor', type=_number, metavar='X', help='how strictly to keep the looks of the first frame')
    add('--profile', choices=('paper', 'release'), help='rules of the paper or of its released program')
    add('--eta', type=_not_negative, metavar='X', help='randomness of DDIM steps, 0 to 1 (paper 0, release 1)')
    add('--decode-frames', type=_at_least_1, metavar='N', help='frames decoded at once; fewer need less memory (8)')
    add('--quiet', action='store_true', help='print warnings and errors only')
    add('--version', action='version', version=f'st2v_jax {__version__}')
    return parser


def _checked(kind, holds, rule):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not holds(value):
            raise argparse.ArgumentTypeError(f'must be {rule}, not {text!r}')
        return value

    return parse


_at_least_1 = _checked(int, lambda value: value >= 1, 'a whole number of at least 1')
_seed = _checked(int, lambda value: 0 <= value < 2**32, f'a whole number between 0 and {2**32 - 1}')
_positive = _checked(float, lambda value: 0 < value <= 1000, 'a number above 0 and up to 1000')
_number = _checked(float, lambda value: abs(value) < float('inf'), 'a number')
_not_negative = _checked(float, lambda value: 0 <= value < float('inf'), 'a number of at least 0')
