"""Series of numbered PNG files: their names, and which of them are ours."""

import os
import re
from pathlib import Path

from st2v_jax.errors import InputError
from st2v_jax.video_io.metadata import read_settings


class Series:
    """The files that a pattern such as `frames/ball-%04d.png` names; `ball.png` means `ball-%04d.png`.

    Raises ValueError if the pattern does not number its files.
    """

    def __init__(self, path: str | os.PathLike):
        self.folder, name = os.path.split(path)
        if '%' not in name:
            root, ending = os.path.splitext(name)
            name = f'{root}-%04d{ending}'
        parts = re.fullmatch(r'((?:[^%]|%%)*)(%(?:0\d+)?d)((?:[^%]|%%)*)', name)
        if not parts:
            raise ValueError('a pattern numbers its frames as in name-%04d.png')
        before, self._number, after = parts.groups()
        self._around = before.replace('%%', '%'), after.replace('%%', '%')

    def file(self, number: int) -> Path:
        """The file of a frame."""
        before, after = self._around
        return Path(self.folder, f'{before}{self._number % number}{after}')

    def there(self) -> list[Path]:
        """The files of the series that exist, with any number."""
        before, after = map(re.escape, self._around)
        name = re.compile(rf'{before}(\d+){after}', re.ASCII)
        folder = self.folder or '.'
        found = [(file, name.fullmatch(file)) for file in os.listdir(folder)] if os.path.isdir(folder) else []
        return [Path(self.folder, file) for file, match in found if match and self.file(int(match[1])).name == file]

    def foreign(self) -> list[Path]:
        """Those of them that no VideoWriter wrote."""
        return [file for file in self.there() if not _is_ours(file)]


def _is_ours(file):
    try:
        return not file.is_symlink() and read_settings(file) is not None
    except InputError:
        return False
