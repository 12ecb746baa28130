"""Files that are there whole or not at all: written beside their place, then moved to it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """An empty binary file, which takes the place of `path` when the block ends.

    A reader finds the old file or the whole new one. Its name until then is of this call alone, so processes that write
    the same path do not meet: the last one counts. After an error only the old file is there.
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
    """Removes unfinished files of killed processes; for a folder that no other process writes at this moment."""
    for left in Path(folder).glob('.*.part'):
        left.unlink(missing_ok=True)
