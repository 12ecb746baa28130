"""The folder in which an enhancement goes on after it was killed, and how it is known which enhancement that is."""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from st2v_jax.errors import OutputError
from st2v_jax.refinement import levels, scratch
from st2v_jax.refinement.levels import damaged, map_file
from st2v_jax.storage import atomic
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_folder
from st2v_jax.storage.text import read_object
from st2v_jax.tokenizer import in_short

MADE_OF = 'enhancement.json'
LATENTS = 'latents'  # of the frames, until they are noised
ENCODED = 'encoded.json'  # what all of them are like, once they are all there


class Encoded(NamedTuple):
    """The latents of a video's frames, all in one file.

    Attributes:
      size: (height, width) of the frames.
      latents: [F, h, w, c], their shape.
      checksum: of the file.
    """

    size: tuple[int, int]
    latents: tuple[int, int, int, int]
    checksum: int

    @classmethod
    def of(cls, folder: Path, size: tuple[int, int], latents: tuple[int, int, int, int]) -> 'Encoded':
        """What has been written to the file, which is noted in the folder: from now on it is complete."""
        found = cls(tuple(size), latents, zlib.crc32(np.memmap(folder / LATENTS, np.uint8, 'r')))
        with scratch.named(folder / ENCODED):
            atomic.write_bytes(folder / ENCODED, json.dumps(found._asdict()).encode())
        return found

    def read(self, folder: Path) -> np.ndarray:
        """The latents [F, h, w, c]. Raises OutputError if they are not as they were written."""
        array = map_file(folder, LATENTS, self.latents, 'r')
        if zlib.crc32(array) != self.checksum:
            raise damaged(folder, f'{LATENTS} has other numbers than were written')
        return array

    def forget(self, folder: Path) -> None:
        """Removes the file, once it is noised."""
        Path(folder, LATENTS).unlink(missing_ok=True)


def find_encoded(folder: Path) -> Encoded | None:
    """The Encoded frames in a folder; None while they are not complete. Raises OutputError for a damaged note."""
    if not (folder / ENCODED).exists():
        return None
    try:
        found = Encoded(**read_object(folder / ENCODED))
        size, latents = tuple(map(int, found.size)), tuple(map(int, found.latents))
        if len(size) != 2 or len(latents) != 4 or min(*size, *latents) < 1:
            raise ValueError(f'{size} and {latents} are no sizes')
        return Encoded(size, latents, int(found.checksum))
    except (TypeError, ValueError) as error:
        raise damaged(folder, f'{ENCODED} cannot be read ({error})') from None


@contextmanager
def kept(folder: str | Path, made_of: Mapping[str, Any]) -> Iterator[Path]:
    """The folder of one enhancement, which a later run with the same `made_of` finds as this one leaves it.

    The folder may be new in one that exists. Until the block ends, no other run can use it.

    Args:
      folder: its path.
      made_of: all that determines the enhanced frames, as JSON values.

    Raises:
      OutputError: if it belongs to something else, if another run is using it, or if nothing can be written there.
    """
    folder, made_of = Path(folder), json.loads(json.dumps(made_of))
    check_folder(folder)
    with locked(folder):
        folder.mkdir(exist_ok=True)
        file = folder / MADE_OF
        if file.exists():
            _compare(folder, made_of)
        elif any(not left.name.startswith('.') for left in folder.iterdir()):
            raise OutputError(f'{folder} is not an enhancement and not empty: an enhancement needs a folder of its own')
        else:
            with scratch.named(file):
                atomic.write_bytes(file, json.dumps(made_of, indent=1).encode())
        atomic.clear(folder)
        yield folder


def remove(folder: str | Path) -> None:
    """Removes an enhancement, and its folder if nothing else is in it."""
    levels.remove(folder)
    for name in (ENCODED, LATENTS, MADE_OF):
        Path(folder, name).unlink(missing_ok=True)
    if not any(Path(folder).iterdir()):
        Path(folder).rmdir()


def _compare(folder, made_of):
    try:
        stored = read_object(folder / MADE_OF)
    except ValueError as error:
        raise damaged(folder, str(error)) from None
    for name in dict.fromkeys([*made_of, *stored]):
        if stored.get(name) != made_of.get(name):
            was, now = (in_short(json.dumps(given.get(name), ensure_ascii=False)) for given in (stored, made_of))
            raise OutputError(f'{folder} is the enhancement of something else: its {name} is {was}, not {now}')
