"""The journal of a session: what happened when, a JSON object in each line. Nothing that a chunk depends on is here."""

import json
import time
from pathlib import Path
from typing import Any


def add(file: Path, **entry: Any) -> None:
    """Adds an entry with the time in seconds since 1970; a line that a killed process left unfinished stays."""
    text = json.dumps({'time': round(time.time(), 3)} | entry, ensure_ascii=False) + '\n'
    with open(file, 'ab+') as opened:
        if opened.seek(0, 2):
            opened.seek(-1, 2)
            if opened.read(1) != b'\n':
                text = '\n' + text
        opened.write(text.encode())


def read(file: Path) -> list[dict[str, Any]]:
    """The entries in their order, without unfinished ones; [] without a journal."""
    entries = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
