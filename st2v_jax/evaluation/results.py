"""The results of a folder of videos: one line of JSON a video, appended when it is measured.

A line is written whole or, by a run that was killed, cut; a cut line is left out when the file is read, and its video
is measured again. Each shard of `--shard i/n` has a file of its own, and a later run without `--shard` joins them.
"""

import json
import os
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from st2v_jax.errors import BadInput
from st2v_jax.storage.atomic import write_bytes
from st2v_jax.storage.lock import Busy, locked
from st2v_jax.storage.untrusted import UnsafeCheckpointError, read_json

FILE = 'videos.jsonl'
SHARD = re.compile(r'videos-\d+-of-\d+\.jsonl')
NEEDS = ('file', 'bytes', 'modified', 'frames', 'measured')

Record = dict[str, Any]


def file_of(folder: str | Path, shard: tuple[int, int] | None = None) -> Path:
    """The file that a run writes: videos.jsonl, or that of shard (i, n)."""
    return Path(folder, FILE if shard is None else f'videos-{shard[0]}-of-{shard[1]}.jsonl')


def shards_in(folder: str | Path) -> list[Path]:
    """The files of shards in a folder."""
    return sorted(path for path in Path(folder).glob('videos-*-of-*.jsonl') if SHARD.fullmatch(path.name))


def read(folder: str | Path) -> tuple[dict[str, Record], int]:
    """({file: its newest record}, number of damaged lines) of a folder of results, empty for a new one.

    Raises BadInput for a videos.jsonl that holds something else.
    """
    records, damaged = {}, 0
    for path in (file_of(folder), *shards_in(folder)):
        found, lost = _read_file(path) if path.exists() else ([], 0)
        records |= {record['file']: record for record in found}
        damaged += lost
    return records, damaged


def _read_file(path):
    records, damaged = [], 0
    for number, line in enumerate(path.read_bytes().split(b'\n'), 1):
        if not line.strip():
            continue
        try:
            record = read_json(line)
        except UnsafeCheckpointError:
            damaged += 1
            continue
        lacking = [name for name in NEEDS if name not in record]
        if lacking or not isinstance(record['measured'], dict):
            what = f'{", ".join(lacking) or "numbers"} missing in line {number}'
            raise BadInput(f'{path} is not what st2v evaluate --videos writes: {what}')
        records.append(record)
    if damaged > 1 and not records:
        raise BadInput(f'{path} is not what st2v evaluate --videos writes: no line of it is a JSON object')
    return records, damaged


def append(path: str | Path, record: Record) -> None:
    """Adds a line to a file of results, on the disk when this returns; it begins a new line after a cut one."""
    line = _line(record)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b'\n':
            line = b'\n' + line
        while line:  # a full disk takes a part
            line = line[os.write(file, line) :]
        os.fsync(file)
    finally:
        os.close(file)


def join(folder: str | Path) -> dict[str, Record]:
    """Puts all records into videos.jsonl, in the order of their files, without damaged lines; returns them.

    The files of shards go, unless their run is still writing them.
    """
    with ExitStack() as locks:
        finished = []
        for path in shards_in(folder):
            with suppress(Busy):
                locks.enter_context(locked(path))
                finished.append(path)
        records = dict(sorted(read(folder)[0].items()))
        write_bytes(file_of(folder), b''.join(map(_line, records.values())))
        for path in finished:
            path.unlink(missing_ok=True)
    return records


def _line(record):
    return json.dumps(record, allow_nan=False).encode() + b'\n'


def numbers(record: Record, instruments: Iterable[str] | None = None) -> dict[str, float | None]:
    """All numbers of a video, {name: value}, in the order of its instruments, or of those named."""
    measured = record['measured']
    names = measured if instruments is None else [name for name in instruments if name in measured]
    return {name: value for instrument in names for name, value in measured[instrument]['numbers'].items()}
