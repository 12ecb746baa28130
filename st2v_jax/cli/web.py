"""`st2v web`: long videos in a browser."""

import os
import socket
import tempfile
import warnings
from argparse import Namespace
from pathlib import Path

from st2v_jax.cli import options
from st2v_jax.cli.run import Run, require
from st2v_jax.cli.videos import name_device
from st2v_jax.errors import BadInput
from st2v_jax.web.guard import LOOPBACK

DESCRIPTION = """\
Serves a page on which long videos are made, watched while they grow, changed and made again in parts. Each video is a
session in --folder, which st2v session takes too: nothing is lost with the page or with this program.
"""
EXAMPLES = """\
examples:
  {run}
  {run} --folder videos --weights weights/st2v --port 8000
  {run} --host 0.0.0.0 --auth users.txt   # for others; the file has lines such as name:password

It is served to this machine only, unless --host says otherwise. $ST2V_AUTH may have name:password instead of a file.
docs/web.md says more.
"""
AUTH = 'ST2V_AUTH'


def work(arguments: Namespace, run: Run) -> None:
    """Loads the model and serves the page until a signal comes."""
    require('web', 'gradio')
    users = read_users(arguments.auth)
    listening = _listening(arguments)
    with tempfile.TemporaryDirectory() as uploads:
        os.environ |= {'GRADIO_TEMP_DIR': uploads, 'GRADIO_ANALYTICS_ENABLED': 'False', 'HF_HUB_OFFLINE': '1'}
        _serve(arguments, run, listening, users)


def _serve(arguments, run, listening, users):
    warnings.filterwarnings('ignore', module='gradio')  # about what it imports
    from st2v_jax.streaming.generate import load
    from st2v_jax.web.server import application, serve
    from st2v_jax.web.studio import Studio

    loopback = arguments.host in LOOPBACK
    name_device(arguments.dtype)
    studio = Studio(arguments.folder, load(arguments.weights, arguments.dtype), arguments.decode_frames)
    app = application(studio, max_bytes=arguments.max_upload * 2**20, loopback=loopback, users=users)
    run.written = f'all that was made is in {arguments.folder}'
    if not loopback and not users:
        print('warning: whoever reaches this machine can use the page; --auth asks for a password', flush=True)
    host = f'[{arguments.host}]' if ':' in arguments.host else arguments.host
    port = listening.getsockname()[1]
    print(f'the page is at http://{host}:{port} until Ctrl-C; videos are in {arguments.folder}', flush=True)
    try:
        serve(app, listening)
    finally:
        studio.close()


def _listening(arguments):
    """The socket of the page, opened before the model is loaded."""
    host, port = arguments.host, arguments.port
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror).partition(' (')[0]  # Python adds the address
        raise BadInput(f'cannot listen at {host}, port {port}: {reason}') from error


def read_users(file: str | None) -> list[tuple[str, str]]:
    """(user, password) of a file, or of the environment; [] is everybody. Raises BadInput for what has none."""
    if file is None:
        lines, where = [os.environ[AUTH]] if AUTH in os.environ else [], f'${AUTH}'
    else:
        try:
            lines, where = Path(file).read_text('utf-8').splitlines(), file
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f'cannot read the users: {error}') from error
    users = [tuple(line.strip().split(':', 1)) for line in lines if line.strip()]
    if any(len(user) < 2 or not all(user) for user in users) or (file is not None and not users):
        raise BadInput(f'{where} has lines such as name:password')
    return users


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    parser = options.Parser(prog, DESCRIPTION, usage=f'{prog} [options]')
    parser.epilog = EXAMPLES.format(run=prog)
    add = parser.add_argument
    add('--folder', default='videos', metavar='FOLDER', help='where the videos lie (default: videos)')
    add('--weights', metavar='FOLDER', help='a model written by train or convert (default: the small model)')
    add('--dtype', choices=options.DTYPES, help='what networks compute in (default: what suits the device)')
    add('--decode-frames', **options.DECODE_FRAMES)
    add('--host', default='127.0.0.1', metavar='ADDRESS', help='where to listen (default: 127.0.0.1)')
    add('--port', type=options.port, default=7860, metavar='N', help='the port, 0 for one that is free (default: 7860)')
    add('--auth', metavar='FILE', help='a file with lines of name:password; others are not let in')
    add('--max-upload', type=options.at_least_1, default=64, metavar='MB', help='size of an upload (default: 64)')
    return parser
