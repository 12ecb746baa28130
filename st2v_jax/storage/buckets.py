"""Folders in a bucket of Google Cloud Storage, by addresses such as gs://bucket/runs/cam.

Paths of this machine are pathlib's; those of a bucket are etils', which have the same methods and read through gcsfs. A
bucket has neither renaming nor appending: an object appears when all of it has been sent, in place of an older one.
"""

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = 'gs://'


def is_address(path: str | Path) -> bool:
    """Whether this is the address of something in a bucket, and no path of this machine."""
    return str(path).startswith(PREFIX)


def located(path: str | Path) -> Path:
    """The path object of an address or of a path of this machine. Raises ValueError for an address of another kind."""
    if '://' not in str(path):
        return Path(path)
    if not is_address(path):
        raise ValueError(f'must be a folder of this machine, or in a bucket {PREFIX}..., not {path}')
    from etils import epath  # imported here, because it takes a moment

    return epath.Path(path)


@contextmanager
def reaching(address: str | Path) -> Iterator[None]:
    """A block in which all that fails is an OSError with one line and the address, FileNotFoundError if it was one."""
    if importlib.util.find_spec('gcsfs') is None:
        raise OSError(f"{address}: gcsfs is not installed: pip install 'st2v_jax[gcs]'")
    try:
        yield
    except Exception as error:  # of gcsfs, of its HTTP client or of Google's library for credentials
        reason = str(error).strip().partition('\n')[0] or type(error).__name__
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        raise kind(f'{address}: the bucket cannot be reached ({reason})') from error


def check(address: str | Path) -> None:
    """Raises OSError unless the bucket of an address answers; there need be nothing at the address."""
    with suppress(FileNotFoundError), reaching(address):
        _system().info(str(address))


def read(address: str | Path) -> bytes:
    """All of an object, fetched at once. Raises FileNotFoundError if there is none."""
    with reaching(address):
        return _system().cat_file(str(address))


def write(address: str | Path, data: bytes) -> None:
    """Sends an object, which appears when the last part has been sent."""
    with reaching(address):
        _system().pipe_file(str(address), data)


@contextmanager
def made_here(path: str | Path) -> Iterator[Path]:
    """A path of this machine for a file that will be at `path`: the same or, for an address, one that is then sent."""
    if not is_address(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield (made := Path(folder, located(path).name))
        write(path, made.read_bytes())


def _system():
    import fsspec

    return fsspec.filesystem('gs')
