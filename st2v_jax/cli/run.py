"""`st2v VERB`: how every verb starts and how it ends.

A failure is one line, `error: ...` or `stopped: ...`, and an exit code of `EXIT_CODES`. A traceback is a bug.

A verb is a module of this folder with two functions: parser(prog) returns its `options.Parser`, and
work(arguments, run) does the work. Errors are raised there and reported here.
"""

import argparse
import atexit
import importlib
import importlib.util
import os
import shlex
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from st2v_jax import stopping
from st2v_jax.cli import options, programs
from st2v_jax.cli.streams import lenient_streams
from st2v_jax.errors import BadInput, Failed, InputError, OutputError

VERBS = {
    'sample': 'make a long video from one sentence',
    'enhance': 'redraw a video, larger and sharper',
    'session': 'go on with a long video, or change a part of it',
    'web': 'make and change long videos in a browser',
    'verify': 'make a video again and say whether it is equal',
    'train': 'train one stage of the model',
    'convert': 'turn published checkpoints into a folder of weights, and back',
    'evaluate': 'measure the long videos of a model and write pages about it',
    'plan': 'compile for a TPU without one: what fits its memory',
    'prepare-data': 'cut captioned videos into clips for training',
}
EXIT_CODES = {
    0: 'done',
    1: 'the machine failed: memory, disk, device, training that cannot go on',
    2: 'bad input; nothing was written',
    70: 'a bug of this program; a traceback is shown',
    129: 'stopped because the terminal was closed (SIGHUP)',
    130: 'stopped by Ctrl-C (SIGINT)',
    143: 'stopped by kill or by a scheduler (SIGTERM)',
}
BUG = 70
# Errors of the operating system about a name that the user gave; its other errors are about the disk.
MISNAMED = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass
class Run:
    """One run of a verb: what to report when it ends early. The verb keeps it up to date.

    Attributes:
      parser: the parser of the verb.
      again: the command that repeats or continues the run.
      written: what has been written so far, in words.
      draft: the file of the video before its enhancement, or None.
      target: what is being written, for errors that do not name a file.
      lower: options that reduce the device memory needed.
    """

    parser: options.Parser
    again: str
    written: str = 'nothing was written'
    draft: str | None = None
    target: str | None = None
    lower: tuple[str, ...] = ()

    @property
    def left(self) -> str:
        """What was written, and how to continue."""
        draft = f', the video before its enhancement is in {self.draft}' if self.draft else ''
        return f'{self.written}{draft}; again: {self.again}'


def main(argv: list[str] | None = None) -> int:
    """Runs a command line, given without the name of the program, and returns the exit code."""
    with lenient_streams(), stopping.listening():
        try:
            return _run(sys.argv[1:] if argv is None else list(argv))
        except stopping.Stopped as stopped:  # by a signal while the arguments were read, or by a second one
            return _end('nothing was written', stopped.code, 'stopped')
        except Exception as error:
            traceback.print_exc()
            return _end(f'this is a bug of st2v_jax, please report it with the lines above: {error!r}', BUG)
        finally:
            atexit.register(stopping.leave)  # last, so that it comes before all that was registered during the work


def _run(argv):
    """The exit code of a command line; raises what is a bug."""
    try:
        _check_encoding(argv)
    except BadInput as error:
        return _end(error, 2)
    verb, arguments, run = parse(argv)
    programs.keep()
    try:
        stopping.check()
        verb.work(arguments, run)
        stopping.check()
    except stopping.Stopped as stopped:
        return _end(run.left, stopped.code, 'stopped')
    except (BadInput, InputError, OutputError, ValueError, *MISNAMED) as error:
        return _end(_words(error), 2)
    except Failed as error:
        return _end(error, 1)
    except OSError as error:
        return _end(f'{_words(error, run.target)}; {run.left}', 1)
    except (RuntimeError, MemoryError) as error:
        return _end(_of_the_device(error, run), 1)
    return 0


def parse(argv: list[str]) -> tuple[ModuleType, argparse.Namespace, Run]:
    """Returns (module of the verb, its arguments, Run) for a command line; --help and mistakes raise SystemExit."""
    _overview().parse_args(argv[:1])
    verb, *rest = argv
    module = importlib.import_module(f'st2v_jax.cli.{verb.replace("-", "_")}')
    parser = module.parser(_called(verb))
    return module, parser.parse_args(rest), Run(parser, f'{parser.prog} {shlex.join(rest)}')


def _check_encoding(argv):
    """Raises BadInput for an argument with bytes that are no text: they would fail wherever it is used."""
    for word in argv:
        if not any('\udc80' <= letter <= '\udcff' for letter in word):  # how Python keeps bytes that it cannot decode
            continue
        raw, encoding = os.fsencode(word), sys.getfilesystemencoding()
        shown = ''.join(chr(byte) if 32 <= byte < 127 else f'\\x{byte:02x}' for byte in raw)
        try:
            raw.decode()
        except UnicodeDecodeError:
            raise BadInput(f'arguments are text in UTF-8, not "{shown}"') from None
        raise BadInput(f'arguments are read as {encoding} here, which "{shown}" is not: set PYTHONUTF8=1')


def require(extra: str, *modules: str) -> None:
    """Raises BadInput if a module is missing that `pip install 'st2v_jax[extra]'` installs."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"{name} is not installed: pip install 'st2v_jax[{extra}]'")


def _overview():
    prog = 'python -m st2v_jax' if _is_module() else 'st2v'
    verbs = '\n'.join(f'  {verb:<14}{text}' for verb, text in VERBS.items())
    codes = '\n'.join(f'  {code:<5}{text}' for code, text in EXIT_CODES.items())
    parser = options.Parser(prog, 'StreamingT2V in JAX: long videos from one sentence.', usage=f'{prog} VERB ...')
    parser.epilog = f'verbs:\n{verbs}\n\n{prog} VERB --help describes a verb.\n\nexit codes of all verbs:\n{codes}'
    parser.add_argument('verb', choices=VERBS, metavar='VERB', help=argparse.SUPPRESS)
    return parser


def _called(verb):
    """How the user called this program, for the command that repeats the run."""
    python = Path(sys.orig_argv[0]).name if sys.orig_argv else 'python'
    if Path(sys.argv[0]).name == f'{verb}.py':
        return f'{python} {shlex.quote(sys.argv[0])}'
    return f'{python} -m st2v_jax {verb}' if _is_module() else f'st2v {verb}'


def _is_module():
    return Path(sys.argv[0]).parts[-2:] == ('st2v_jax', '__main__.py')


def _of_the_device(error, run):
    """The message for an error of the device; any other error is raised again."""
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        return 'out of device memory' + (f'; to use less, try {", or ".join(run.lower)}' if run.lower else '')
    if 'Unable to initialize backend' in str(error):
        return f'no device to compute on: {str(error).splitlines()[0]}'
    raise error


def _words(error, target=None):
    """The message of an error, for one of the operating system with the file that it concerns."""
    if isinstance(error, OSError) and error.strerror:
        return ': '.join(str(part) for part in (error.filename or target, error.strerror) if part)
    return str(error)


def _end(message, code, kind='error'):
    """Reports the end in one line: from a list of complaints the first, and how many more there are."""
    first, *complaints = (line.strip() for line in str(message).splitlines())
    more = f' (and {len(complaints) - 1} more)' if len(complaints) > 1 else ''
    print(f'{kind}: {" ".join([first, *complaints[:1]])}{more}', file=sys.stderr, flush=True)
    return code
