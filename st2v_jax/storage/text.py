"""Text files that people hand over, whatever program wrote them: lists of prompts, captions, stored JSON."""

import codecs
import re
from pathlib import Path
from typing import Any

from st2v_jax.storage.buckets import located
from st2v_jax.storage.untrusted import UnsafeCheckpointError, read_json

# How a file says that it is not plain UTF-8. The marks of UTF-32 come first, because one begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: 'utf-32',
    codecs.BOM_UTF32_BE: 'utf-32',
    codecs.BOM_UTF16_LE: 'utf-16',
    codecs.BOM_UTF16_BE: 'utf-16',
    codecs.BOM_UTF8: 'utf-8-sig',
}
LINE_ENDS = re.compile('\r\n|\n|\r')


def read_lines(file: str | Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, without white space around them, as (number from 1, line).

    The file is UTF-8, or UTF-16 or UTF-32 with their byte order mark. Lines end as on Unix, Windows or an old Mac, and
    nowhere else: U+2028 and the like are part of a line.

    Raises ValueError with file and line for other encodings and for NUL, which no text has.
    """
    data = Path(file).read_bytes()
    encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), 'utf-8')
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before, byte = data[: error.start].decode(encoding, 'replace'), data[error.start]
        number = len(LINE_ENDS.split(before))
        name = encoding.removesuffix('-sig').upper()
        raise ValueError(f'{file}, line {number}: byte 0x{byte:02x} is not {name}: save the file as UTF-8') from None
    # files that were joined have the mark of UTF-8 in the middle
    lines = [(number, line.lstrip('\ufeff').strip()) for number, line in enumerate(LINE_ENDS.split(text), 1)]
    for number, line in lines:
        if '\0' in line:
            raise ValueError(f'{file}, line {number}: a NUL character, which no text has: save the file as UTF-8')
    return [(number, line) for number, line in lines if line]


def read_objects(file: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with one in each line, as (number of the line, object); blank lines are skipped.

    Raises ValueError with file and line where a line is something else.
    """
    objects = []
    for number, line in read_lines(file):
        try:
            objects.append((number, read_json(line.encode())))
        except UnsafeCheckpointError as error:
            raise ValueError(f'{file}, line {number}: {error}') from None
    return objects


def read_object(file: str | Path) -> dict[str, Any]:
    """The one JSON object of a file. Raises UnsafeCheckpointError (a ValueError) with its name for anything else."""
    try:
        return read_json(located(file).read_bytes())
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f'{file}: {error}') from None
