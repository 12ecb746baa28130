"""Kills `st2v sample --session` at random moments (-9), lets it go on, and compares with a run that was left alone.

    python benchmarks/session_kills.py --weights FOLDER --kills 50
    python benchmarks/session_kills.py --weights FOLDER --kills 50 --gate

Runs are forks of this process, which has imported everything and computed nothing, so a run starts at once. Half of the
kills come at any moment from the start on, the others when the first step is done or later. The process ends with 1
if a byte of a chunk or of the video differs. With --gate, most chunks are drawn again: its limits are that low.
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

from st2v_jax.streaming import gate

OPTIONS = ['--prompt', 'a red ball moves left', '--num-frames', '96', '--steps', '2', '--seed', '3', '--quiet']
GATE, LOW = ['--gate', 'reroll', '--gate-tries', '2'], {'cut': 0.8}


def main() -> int:
    """Runs the kills and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--weights', required=True)
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--gate', action='store_true')
    parser.add_argument('--start', help='a clip or a picture that the video starts from')
    arguments = parser.parse_args()
    warm()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        options = [*OPTIONS, '--weights', arguments.weights]
        if arguments.gate:
            options += GATE
            gate.LIMITS.update(LOW)
        if arguments.start is not None:
            options += ['--start', arguments.start]
        assert finish('compiled', options) == 0  # so that all other runs take the programs from the cache
        starts, samples = undisturbed('alone', options)
        wanted, killed, different = contents('alone'), 0, 0
        assert not arguments.gate or len(wanted) > 15, 'more than the 11 chunks and the video'
        while killed < arguments.kills:
            from_start = moments.random() < 0.5
            at = moments.uniform(0, starts + samples if from_start else samples)
            if killed_at('ball', options, at, from_start):
                killed += 1
                there = len(list(Path('ball', 'chunks').glob('[0-9a-f]*.safetensors')))
                since = 'start' if from_start else 'first step'
                print(f'kill {killed}, {at:.2f} s after the {since}: {there} chunks are stored', flush=True)
                if killed < arguments.kills:
                    continue
                finish('ball', options)
            equal = contents('ball') == wanted
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
    """Starts a run; returns (its process id, the end of a pipe that gets a byte with each step and ends with it)."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    os.close(reading)
    from st2v_jax.cli.progress import Progress
    from st2v_jax.cli.run import main

    Progress.to = lambda *_: os.write(writing, b'.')
    code = 70
    try:
        code = main(['sample', *options, '--session', session])
    finally:
        os._exit(code)


def finish(session, options):
    """Lets a run end; returns its exit code."""
    process, reading = run(session, options)
    return ended(process, reading)


def undisturbed(session, options):
    """Lets a run end; returns the seconds to its first step, and from there to its end."""
    began = time.monotonic()
    process, reading = run(session, options)
    os.read(reading, 1)
    first = time.monotonic()
    assert ended(process, reading) == 0
    return first - began, time.monotonic() - first


def killed_at(session, options, seconds, from_start):
    """Kills a run so many seconds after its start, or its first step; returns whether it had not ended by itself."""
    process, reading = run(session, options)
    if not from_start:
        os.read(reading, 1)
    until = time.monotonic() + seconds
    running = True
    while running and (left := until - time.monotonic()) > 0:
        running = not select.select([reading], [], [], left)[0] or bool(os.read(reading, 1))
    if running:
        os.kill(process, signal.SIGKILL)
    code = ended(process, reading)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def ended(process, reading):
    """Waits for the end of a process; returns its exit code."""
    while os.read(reading, 1 << 16):
        pass
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def contents(session):
    """{name: bytes} of the chunks and of the video."""
    files = [*Path(session, 'chunks').iterdir(), Path(session, 'main.mp4')]
    return {file.name: file.read_bytes() for file in files}


if __name__ == '__main__':
    sys.exit(main())
