"""Files that an earlier study or training run stored; another file in the place of one is told in one line."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from st2v_jax.errors import BadInput
from st2v_jax.storage.text import read_object


@contextlib.contextmanager
def written(path: str | Path, by: str) -> Iterator[None]:
    """Errors of the code inside about what is not in a file become BadInput: the file is not what `by` writes."""
    try:
        yield
    except KeyError as error:
        raise BadInput(f'{path} is not what {by} writes: {error} is missing') from error
    except (AttributeError, IndexError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f'{path} is not what {by} writes ({error})') from error
    except OSError as error:
        if error.errno is not None:  # of the disk; without a number it is from a decoder
            raise
        raise BadInput(f'{path} is not what {by} writes ({error})') from error


def read(path: str | Path, by: str, needs: Iterable[str]) -> dict[str, Any]:
    """The JSON object of a file that `by` writes. Raises BadInput unless it has the keys in `needs`."""
    values = read_object(path)
    lacking = [name for name in needs if name not in values]
    if lacking:
        raise BadInput(f'{path} is not what {by} writes: {", ".join(lacking)} missing')
    return values
