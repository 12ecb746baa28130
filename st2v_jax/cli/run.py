"""`st2v VERB`: how every verb starts and how it ends.

Exit codes: 0 done; 1 the machine failed (memory, disk, no device, a training run that cannot go on); 2 bad input,
nothing was written; 130 Ctrl-C. A failure is one line, `error: ...` or `stopped: ...`; a traceback is a bug.

A verb is a module of this folder with two functions: parser(prog) returns its `options.Parser`, and
work(arguments, run) does the work. Errors are raised there and reported here.
"""

import argparse
import importlib
import importlib.util
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from st2v_jax.cli import options, programs
from st2v_jax.errors import BadInput, Failed, InputError, OutputError

VERBS = {
    'sample': 'make a long video from one sentence',
    'enhance': 'redraw a video, larger and sharper',
    'train': 'train one stage of the model',
    'convert': 'turn published checkpoints into a folder of weights, and back',
    'evaluate': 'measure the long videos of a model and write pages about it',
    'prepare-data': 'cut captioned videos into clips for training',
}
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
    verb, arguments, run = parse(sys.argv[1:] if argv is None else list(argv))
    programs.keep()
    try:
        verb.work(arguments, run)
    except KeyboardInterrupt:
        return _end(run.left, 130, 'stopped')
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


def require(extra: str, *modules: str) -> None:
    """Raises BadInput if a module is missing that `pip install 'st2v_jax[extra]'` installs."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"{name} is not installed: pip install 'st2v_jax[{extra}]'")


def _overview():
    prog = 'python -m st2v_jax' if _is_module() else 'st2v'
    verbs = '\n'.join(f'  {verb:<14}{text}' for verb, text in VERBS.items())
    parser = options.Parser(prog, 'StreamingT2V in JAX: long videos from one sentence.', usage=f'{prog} VERB ...')
    parser.epilog = (
        f'verbs:\n{verbs}\n\n{prog} VERB --help describes a verb.\n\n'
        'exit codes: 0 done, 1 the machine failed, 2 bad input, 130 Ctrl-C'
    )
    parser.add_argument('verb', choices=VERBS, metavar='VERB', help=argparse.SUPPRESS)
    return parser


def _called(verb):
    """How the user called this program, for the command that repeats the run."""
    if Path(sys.argv[0]).name == f'{verb}.py':
        return f'python {shlex.quote(sys.argv[0])}'
    return f'python -m st2v_jax {verb}' if _is_module() else f'st2v {verb}'


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
