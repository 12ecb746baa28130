"""Files that appear whole or not at all: they are written under another name and then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """An empty binary file that replaces `path` when the block ends.

    A reader finds the old file or the whole new one. Until then the file has a name that only this call uses, so
    several processes may write the same path: the last one wins. After an error only the old file is there.
    """
    path = Path(path)
    beside = path.with_name(f'.{path.name}.{secrets.token_hex(8)}.part')
    try:
        with open(beside, 'xb') as file:
            yield file
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a whole file, see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def clear(folder: str | Path) -> None:
    """Removes the unfinished files of killed processes from a folder that no other process is writing to."""
    for left in Path(folder).glob('.*.part'):
        left.unlink(missing_ok=True)
