"""Videos that somebody gives, of any program: which files they are, and what was asked for in each."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from st2v_jax.errors import BadInput, InputError
from st2v_jax.storage.text import read_objects
from st2v_jax.video_io import read_metadata

ENDINGS = ('.mp4', '.m4v', '.mov', '.webm', '.mkv', '.avi', '.gif')


@dataclass(frozen=True)
class GivenVideo:
    """A video to measure.

    Attributes:
      path: its file, or a folder of frames.
      file: its name in the results, relative to what was given.
      prompt: what it should show; None if nobody says.
      seed: that it was made with; None if nobody says.
      opens: whether its file can be opened; what is wrong with it is told when it is measured.
    """

    path: Path
    file: str
    prompt: str | None = None
    seed: int | None = None
    opens: bool = True

    def stamp(self) -> dict[str, int]:
        """{'bytes', 'modified'}: size, and time in nanoseconds, of the file or of all frames; they show a change."""
        files = [self.path, *self.path.iterdir()] if self.path.is_dir() else [self.path]
        found = [file.stat() for file in files]
        return {'bytes': sum(each.st_size for each in found), 'modified': max(each.st_mtime_ns for each in found)}


def find(given: Sequence[str], prompts: str | Path | None = None) -> list[GivenVideo]:
    """The videos of folders, files and patterns such as 'a/*.mp4', in the order of their names.

    A folder gives the video files in it; a pattern also matches folders of frames. Names are relative to the deepest
    folder that holds everything that was given. The prompt is that of the file `prompts`, see `read_prompts`, or the
    one that a file of ours stores.

    Raises BadInput where nothing is found, and ValueError for a file of prompts that is none.
    """
    roots, paths = [], []
    for each in given:
        root, some = _files_of(each)
        if not some:
            raise BadInput(f'there are no videos in {each}: files ending with {", ".join(ENDINGS)}, or a pattern')
        roots.append(root)
        paths += some
    root = os.path.commonpath([os.path.abspath(each) for each in roots])
    named = {os.path.relpath(path, root): path for path in paths}
    asked = {} if prompts is None else read_prompts(prompts)
    videos = []
    for file, path in sorted(named.items()):
        file = os.fsencode(file).decode(errors='replace')
        ours = _metadata(path)
        prompt = asked.get(file, asked.get(os.path.basename(file), ours.get('prompt')))
        videos.append(GivenVideo(Path(path), file, prompt, ours.get('seed'), ours.get('opens', True)))
    return videos


def _files_of(given):
    """(the folder that names are relative to, the videos)"""
    if os.path.isdir(given):
        some = [os.path.join(given, name) for name in os.listdir(given) if not name.startswith('.')]
        return given, [path for path in some if path.lower().endswith(ENDINGS) and os.path.isfile(path)]
    if os.path.exists(given) or not glob.has_magic(given):
        if not os.path.exists(given):
            raise BadInput(f'there is no video, folder or pattern {given}')
        return os.path.dirname(given) or os.curdir, [given]
    folders = given.split(os.sep)
    fixed = next(number for number, part in enumerate(folders) if glob.has_magic(part))
    root = os.sep.join(folders[:fixed]) or (os.sep if given.startswith(os.sep) else os.curdir)
    return root, glob.glob(given, recursive=True)


def _metadata(path):
    """The prompt and the seed that a file of ours stores, and whether it opens."""
    try:
        found = {} if os.path.isdir(path) else read_metadata(path)
    except InputError:
        return {'opens': False}
    prompt, seed = found.get('prompt'), found.get('seed')
    return {'prompt': prompt if isinstance(prompt, str) else None, 'seed': seed if isinstance(seed, int) else None}


def read_prompts(path: str | Path) -> dict[str, str]:
    """{file: prompt} of a file with a line {"file": "a.mp4", "prompt": "..."} for each video; other keys may follow.

    Raises ValueError with file and line for anything else.
    """
    prompts = {}
    for number, values in read_objects(path):
        file, prompt = values.get('file'), values.get('prompt')
        if not all(isinstance(value, str) and value.strip() for value in (file, prompt)):
            raise ValueError(f'{path}, line {number}: a line must be {{"file": "...", "prompt": "..."}}')
        if prompts.setdefault(file, prompt) != prompt:
            raise ValueError(f'{path}, line {number}: another prompt for {file} than before')
    return prompts


def without_prompt(videos: Iterable[GivenVideo]) -> list[str]:
    """The videos whose prompt nobody says, without those that do not open."""
    return [video.file for video in videos if video.prompt is None and video.opens]
