"""One run writes an output at a time.

The lock is an empty hidden file beside the output that the run holds with flock. The kernel lets go of it however the
run ends, so what a killed run left behind stops nobody, and the next run takes it over.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from st2v_jax.errors import OutputError
from st2v_jax.storage.buckets import is_address
from st2v_jax.storage.names import LONGEST

try:
    import fcntl
    import resource
except ImportError:  # on Windows, where runs are not kept apart
    fcntl = None

ENDING = '.st2v-lock'
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # by the file system


class Busy(OutputError):
    """Another run is writing the output."""


@contextmanager
def locked(output: str | Path) -> Iterator[None]:
    """Keeps other runs from writing the file or folder `output` until the block ends; it need not exist.

    Two names of one file are one output. Folders above it are made, and go at the end if they are still empty. Where
    there are no locks, as in a bucket, the block runs without.

    Raises:
      Busy: at once, if another run is writing it.
      OutputError: if nothing can be written there.
    """
    with ExitStack() as stack:
        if fcntl is not None and not is_address(output):
            try:
                _make_folders(Path(os.path.realpath(output)).parent, stack)
                name = lock_file(output)
                if (file := _take(name)) is not None:
                    stack.callback(_release, file, name)
            except BlockingIOError as error:
                raise Busy(f'another run is writing {output}') from error
            except OSError as error:
                raise OutputError(f'cannot write {output}: {error.strerror}') from error
        yield


def lock_file(output: str | Path) -> Path:
    """The file that is locked for an output: beside it, or in it where the folder around it is read-only."""
    real = os.path.realpath(output)
    folder, name = os.path.split(real)
    if os.path.isdir(real) and (not name or not os.access(folder, os.W_OK)):
        return Path(real, ENDING)
    plain = f'.{name}{ENDING}'
    if len(os.fsencode(plain)) > LONGEST:
        plain = f'.{hashlib.sha256(os.fsencode(name)).hexdigest()}{ENDING}'
    return Path(folder, plain)


def _make_folders(folder, stack):
    """Makes a folder and those above it; what is made goes with the stack if nothing is in it then."""
    if folder.exists():
        return
    _make_folders(folder.parent, stack)
    with suppress(FileExistsError):  # another run was quicker
        folder.mkdir()
        stack.callback(_remove_if_empty, folder)


def _remove_if_empty(folder):
    with suppress(OSError):
        folder.rmdir()


def _take(name):
    """Opens and locks the lock file and returns its descriptor, None where there are no locks."""
    while True:
        file = _open(name)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return _release(file, name)
            os.close(file)
            raise
        if _is(file, name):
            _leave_descriptors(file)
            return file
        os.close(file)  # the run that had it has removed it since: the next file of that name is the lock


def _leave_descriptors(taken):
    """Keeps half of the descriptors for other files: a list of prompts can have thousands of outputs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and 2 * taken > soft:
        more = 2 * soft if hard == resource.RLIM_INFINITY else min(2 * soft, hard)
        with suppress(OSError, ValueError):  # the system has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))


def _open(name):
    """The lock file, made if it is not there; links are not followed."""
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except PermissionError:
        if not os.path.exists(name):
            raise
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW)  # left by another user; reading is enough for a lock


def _is(file, name):
    """Whether the open file is the one that has this name now."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(name, follow_symlinks=False))
    return False


def _release(file, name):
    """Removes the lock file and lets go of it, in this order: who opened it before sees that it has gone."""
    about = os.fstat(file)
    if stat.S_ISREG(about.st_mode) and not about.st_size and _is(file, name):  # a lock is empty: the rest is not ours
        with suppress(OSError):
            os.unlink(name)
    os.close(file)
