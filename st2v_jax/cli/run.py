"""`st2v VERB`: what all verbs have in common, which is how they begin and how they end.

Exit codes: 0 done; 1 the machine failed (memory, disk, no device, a training that cannot go on); 2 bad input, and
nothing was written; 130 Ctrl-C. A failure is one line, `error: ...` or `stopped: ...`; a traceback is a bug.

A verb is a module of this folder with two functions: parser(prog) gives its `options.Parser`, work(arguments, run) does
it and lets errors rise to here.
"""

import importlib
import importlib.util
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from st2v_jax.cli import options
from st2v_jax.errors import BadInput, Failed, InputError, OutputError

VERBS = {
    'sample': 'make a long video from one sentence',
    'enhance': 'draw a video once more, larger and sharper',
    'train': 'train one stage of the model',
    'convert': 'turn published checkpoints into a folder of weights, and back',
    'evaluate': 'measure the long videos of a model, and write the pages about it',
    'prepare-data': 'cut videos with captions into clips to train on',
}
# What an operating system says of a name that was given wrongly; its other errors are those of the disk.
MISNAMED = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass
class Run:
    """One run of a verb: what there is to say of it when it ends early. The verb keeps it up to date.

    Attributes:
      parser: of the verb.
      again: the command that does it again, or goes on with it.
      written: what has come of it so far.
      draft: a video that is left beside what was asked for, or None.
      target: what is being written, for errors that do not name a file.
      lower: what takes less device memory, option by option.
    """

    parser: options.Parser
    again: str
    written: str = 'nothing was written'
    draft: str | None = None
    target: str | None = None
    lower: tuple[str, ...] = ()

    @property
    def left(self) -> str:
        """What is on the disk, and how to go on."""
        draft = f', the video before its enhancement is in {self.draft}' if self.draft else ''
        return f'{self.written}{draft}; again: {self.again}'


def main(argv=None) -> int:
    """Does what a command line says, without the program's own name; returns the exit code."""
    verb, arguments, run = parse(sys.argv[1:] if argv is None else list(argv))
    _keep_compiled_programs()
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


def parse(argv):
    """(module of the verb, its arguments, Run) of a command line; --help and mistakes leave by SystemExit."""
    _overview().parse_args(argv[:1])
    verb, *rest = argv
    module = importlib.import_module(f'st2v_jax.cli.{verb.replace("-", "_")}')
    parser = module.parser(_called(verb))
    return module, parser.parse_args(rest), Run(parser, f'{parser.prog} {shlex.join(rest)}')


def require(extra, *modules):
    """Raises BadInput for the first module that is not installed and comes with `pip install 'st2v_jax[extra]'`."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"{name} is not installed: pip install 'st2v_jax[{extra}]'")


def _overview():
    prog = 'python -m st2v_jax' if _is_module() else 'st2v'
    verbs = '\n'.join(f'  {verb:<14}{text}' for verb, text in VERBS.items())
    parser = options.Parser(prog, 'StreamingT2V in JAX: long videos from one sentence.', usage=f'{prog} VERB ...')
    parser.epilog = (
        f'verbs:\n{verbs}\n\n{prog} VERB --help says more.\n\n'
        'exit codes: 0 done, 1 the machine failed, 2 bad input, 130 Ctrl-C'
    )
    parser.add_argument('verb', choices=VERBS, metavar='VERB', help='what to do')
    return parser


def _called(verb):
    """How the user called this program, for `again: ...`."""
    if Path(sys.argv[0]).name == f'{verb}.py':
        return f'python {shlex.quote(sys.argv[0])}'
    return f'python -m st2v_jax {verb}' if _is_module() else f'st2v {verb}'


def _is_module():
    return Path(sys.argv[0]).parts[-2:] == ('st2v_jax', '__main__.py')


def _keep_compiled_programs():
    """Sets jax's persistent compilation cache, by the variables that jax reads when it is imported, later on.

    A folder named by jax's own variable is left in charge.
    """
    folder = os.environ.get('ST2V_CACHE')
    if folder is None:
        if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
            return
        folder = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'st2v_jax')
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return  # a home that cannot be written costs time, not the video
    os.environ |= {
        'JAX_COMPILATION_CACHE_DIR': folder,
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
    }


def _of_the_device(error, run):
    """The line for an error of the device; any other error is raised again."""
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        return 'out of device memory' + (f'; lower what it needs: {", or ".join(run.lower)}' if run.lower else '')
    if 'Unable to initialize backend' in str(error):
        return f'no device to compute on: {str(error).splitlines()[0]}'
    raise error


def _words(error, target=None):
    """What an error says; one of the operating system with the file that it is about."""
    if isinstance(error, OSError) and error.strerror:
        return ': '.join(str(part) for part in (error.filename or target, error.strerror) if part)
    return str(error)


def _end(message, code, kind='error'):
    """Says how it ended in one line: of a list of complaints the first and how many more there are."""
    first, *complaints = (line.strip() for line in str(message).splitlines())
    more = f' (and {len(complaints) - 1} more)' if len(complaints) > 1 else ''
    print(f'{kind}: {" ".join([first, *complaints[:1]])}{more}', file=sys.stderr, flush=True)
    return code
