"""Files that appear whole or not at all: they are written under another name and then renamed."""

import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from st2v_jax.storage import buckets
from st2v_jax.storage.names import fit


def beside(path: str | Path) -> Path:
    """A hidden name next to `path` that nobody else uses, for a file that is not complete yet."""
    path = Path(path)
    return path.with_name(fit(f'.{path.name}', f'.{secrets.token_hex(8)}.part'))


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """An empty binary file that replaces `path` when the block ends.

    A reader finds the old file or the whole new one. Until then the file has a name that only this call uses, so
    several processes may write the same path: the last one wins. After an error only the old file is there. What goes
    to a bucket is kept in memory until then.
    """
    if buckets.is_address(path):
        file = io.BytesIO()
        yield file
        buckets.write(path, file.getvalue())
        return
    part = beside(path)
    try:
        with open(part, 'xb') as file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a whole file, see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def append_line(path: str | Path, line: str) -> None:
    """Appends a line of text to a file; in a bucket, which cannot append, the whole file is written again."""
    data = line.encode() + b'\n'
    if buckets.is_address(path):
        write_bytes(path, (buckets.read(path) if buckets.located(path).exists() else b'') + data)
        return
    with open(path, 'ab') as file:
        file.write(data)


def clear(folder: str | Path) -> None:
    """Removes the unfinished files of killed processes from a folder that no other process is writing to."""
    for left in Path(folder).glob('.*.part'):
        if re.search(r'\.[0-9a-f]{16}\.part$', left.name):  # others are not ours
            left.unlink(missing_ok=True)
