"""Kills `st2v sample --session` at random moments (-9), lets it go on, and compares with a run that was left alone.

    python tests/sessions/kills.py --weights FOLDER --kills 50

Runs are forks of this process, which has imported everything and computed nothing, so a run starts at once. The
process ends with 1 if a byte of a chunk or of the video differs.
"""

import argparse
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

OPTIONS = ['--prompt', 'a red ball moves left', '--num-frames', '120', '--steps', '2', '--seed', '3', '--quiet']


def main() -> int:
    """Runs the kills and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--weights', required=True)
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    warm()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        options = [*OPTIONS, '--weights', arguments.weights]
        assert finish('compiled', options) == 0  # so that all other runs take the programs from the cache
        began = time.monotonic()
        assert finish('alone', options) == 0
        lasts = time.monotonic() - began
        wanted, killed, different = contents('alone'), 0, 0
        while killed < arguments.kills:
            at = moments.uniform(0, lasts)
            if killed_at('ball', options, at):
                killed += 1
                chunks = len(list(Path('ball', 'chunks').glob('[0-9a-f]*.safetensors')))
                print(f'kill {killed} after {at:.2f} s of {lasts:.2f}: {chunks} chunks are stored', flush=True)
                if chunks < len(wanted) - 1 and killed < arguments.kills:
                    continue
            equal = finish('ball', options) == 0 and contents('ball') == wanted
            different += not equal
            print(f'finished: {"equal" if equal else "DIFFERENT"}', flush=True)
            shutil.rmtree('ball')
        print(f'{killed} kills, {different} videos differ')
        os.chdir('/')
    return min(different, 1)


def warm() -> None:
    """Imports what a run imports; nothing is computed, because a process with threads cannot be forked."""
    import av  # noqa: F401
    import jax

    from st2v_jax.cli import sample  # noqa: F401
    from st2v_jax.refinement import scratch  # noqa: F401
    from st2v_jax.sessions import manifest, session  # noqa: F401

    assert not jax._src.xla_bridge._backends


def run(session, options):
    """Starts a run and returns (its process id, the end of a pipe that closes when it ends)."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    os.close(reading)
    from st2v_jax.cli.run import main

    code = 70
    try:
        code = main(['sample', *options, '--session', session])
    finally:
        os._exit(code)


def finish(session, options):
    """Lets a run end; returns its exit code."""
    process, reading = run(session, options)
    _, status = os.waitpid(process, 0)
    os.close(reading)
    return os.waitstatus_to_exitcode(status)


def killed_at(session, options, seconds):
    """Kills a run after so many seconds; returns whether it had not ended by itself."""
    process, reading = run(session, options)
    ended, _, _ = select.select([reading], [], [], seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    os.close(reading)
    assert not ended or os.waitstatus_to_exitcode(status) == 0, status
    return not ended


def contents(session):
    """{name: bytes} of the chunks and of the video."""
    files = [*Path(session, 'chunks').iterdir(), Path(session, 'main.mp4')]
    return {file.name: file.read_bytes() for file in files}


if __name__ == '__main__':
    sys.exit(main())
