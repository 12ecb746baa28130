"""Names of files as long as a file system takes them, which counts bytes and not letters."""

import os

LONGEST = 255  # bytes of a name; Linux, macOS and their usual file systems agree


def fit(beginning: str, ending: str = '', longest: int = LONGEST) -> str:
    """beginning + ending, with the beginning cut after a whole letter so that both take at most `longest` bytes."""
    beginning = beginning[:longest]
    while beginning and len(os.fsencode(beginning + ending)) > longest:
        beginning = beginning[:-1]
    return beginning + ending
