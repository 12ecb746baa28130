"""Compiled programs that are kept on disk for the next run: jax's persistent compilation cache.

It only saves time, so whatever is wrong with it is told in one line and the run goes on. jax reads damaged entries in
each run, warns, and never writes over them; here they are removed as jax warns, before it writes the new program.
"""

import contextlib
import glob
import os
import re
import tempfile
import warnings
from pathlib import Path

from st2v_jax.cli.progress import warn

PROBE = 1 << 16  # bytes that are written to see whether there is room
DAMAGED = r"Error reading persistent compilation cache entry for '(.*?)'"
UNWRITTEN = r"Error writing persistent compilation cache entry for '(.*?)': (.*)"


def keep() -> None:
    """Turns the cache on, through the variables that jax reads when it is imported later.

    $ST2V_CACHE names its folder. Without it, a folder named by jax's own variable takes precedence over ours.
    """
    folder = os.environ.get('ST2V_CACHE')
    by_jax = os.environ.get('JAX_COMPILATION_CACHE_DIR') if folder is None else None
    if by_jax and '://' in by_jax:  # a bucket, which only jax can reach
        return
    if folder is None:
        above = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        folder = by_jax or os.path.join(above, 'st2v_jax')
    if not folder:
        return
    trouble = _trouble(folder)
    if trouble:
        os.environ.pop('JAX_COMPILATION_CACHE_DIR', None)
        warn(f'compiled programs are not kept ({trouble}); $ST2V_CACHE can name another folder for them')
        return
    if not by_jax:
        os.environ |= {
            'JAX_COMPILATION_CACHE_DIR': folder,
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
            'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
        }
    _watch(Path(folder))


def _trouble(folder):
    """Why nothing can be written to the folder, which is made if it is missing; None where something can."""
    if folder.startswith('~'):  # no home is known; a folder of that name would be made here
        return f'{folder}: there is no home folder'
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE))
    except OSError as error:
        return f'{folder}: {error.strerror or error}'
    return None


def _watch(folder):
    """Replaces jax's warnings about entries: damaged ones are removed, and of each kind one line is shown."""
    told, shown = set(), warnings.showwarning

    def once(kind, message):
        if kind not in told:
            told.add(kind)
            warn(message)

    def show(message, category, filename, lineno, file=None, line=None):
        if damaged := re.match(DAMAGED, str(message)):
            entries = list(folder.glob(f'{glob.escape(damaged[1])}-*-cache'))
            for entry in list(filter(_is_damaged, entries)) or entries:
                with contextlib.suppress(OSError):
                    entry.unlink()
            once('damaged', f'a compiled program in {folder} is damaged; it is compiled again and replaced')
        elif unwritten := re.match(UNWRITTEN, str(message)):
            once('unwritten', f'compiled programs cannot be kept in {folder} ({unwritten[2]})')
        else:
            shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    for message in (DAMAGED, UNWRITTEN):
        warnings.filterwarnings('always', message)


def _is_damaged(entry):
    """Whether a file of the cache cannot be unpacked."""
    from jax._src.compilation_cache import decompress_executable  # jax has no public function that reads an entry

    try:
        decompress_executable(entry.read_bytes())
    except Exception:  # each of the compressions has its own errors
        return True
    return False
