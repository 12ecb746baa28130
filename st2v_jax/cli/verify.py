"""`st2v verify`: whether a video or a session comes out again as it is."""

from argparse import ArgumentTypeError, Namespace

from st2v_jax.cli import in_session, options
from st2v_jax.cli.run import Run
from st2v_jax.errors import Failed

DESCRIPTION = """\
Makes chunks of a video again and says whether they are equal, equal up to rounding, or different, and where. Of a file,
which needs the manifest that sample --session and session export write into it, all chunks up to the last one asked for
are made again; of a session only those asked for.
"""
EPILOG = """\
examples:
  {run} ball                       # a session: its first, middle and last chunk
  {run} ball --chunks 0,7
  {run} night.mp4 --weights weights/st2v

The exit code is 1 if a chunk is different or damaged.
"""


def work(arguments: Namespace, run: Run) -> None:
    """Verifies a session or a file, and prints a line for each chunk."""
    from st2v_jax.sessions import verification
    from st2v_jax.sessions.about import exists

    if exists(arguments.folder):
        session = in_session.open_session(arguments.folder, arguments.weights, arguments.decode_frames)
        verdicts = verification.of_session(session, arguments.branch, arguments.chunks)
        unit = 'of the spread of its latents'
    else:
        verdicts, unit = _of_file(arguments), 'levels of 255'
    wrong = []
    for number, verdict, apart in verdicts:
        by = f' by {apart:.2g} {unit}' if apart else ''
        print(f'chunk {number}: {verdict}{by}', flush=True)
        if verdict in (verification.DIFFERENT, verification.DAMAGED):
            wrong.append(f'chunk {number} is {verdict}')
    if wrong:
        raise Failed('\n'.join([f'{arguments.folder}:', *wrong]))


def _of_file(arguments):
    from st2v_jax.sessions import verification
    from st2v_jax.streaming.generate import load

    manifest = verification.manifest_of(arguments.folder)
    model = load(arguments.weights, manifest.dtype, manifest.frame_size)
    return verification.of_file(arguments.folder, manifest, model, arguments.chunks)


def _numbers(text):
    if not all(part.isdecimal() for part in text.split(',')):
        raise ArgumentTypeError(f'must be numbers of chunks such as 0,7, not {text!r}')
    return [int(part) for part in text.split(',')]


def add_options(add) -> None:
    """Adds the options that `st2v verify` and `st2v session verify` share."""
    add('--branch', default='main', metavar='NAME', help='of a session (default: main)')
    add('--chunks', type=_numbers, metavar='K,K', help='numbers of the chunks to make again, from 0')


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    parser = options.Parser(prog, DESCRIPTION, epilog=EPILOG.format(run=prog), usage=f'{prog} PATH [options]')
    parser.add_argument('folder', metavar='PATH', help='a session, a video file of one, or a folder of its frames')
    parser.add_argument('--weights', metavar='FOLDER', help='the model (default: that of the session; the small model)')
    parser.add_argument('--decode-frames', **options.DECODE_FRAMES)
    add_options(parser.add_argument)
    return parser
