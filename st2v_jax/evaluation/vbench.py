"""A folder of videos as VBench (Huang et al. 2024, arXiv:2311.17982) reads it.

    videos/<prompt>-<index>.mp4     the names of its standard prompts; it reads the prompt from the name
    prompts.json                    {file name: prompt}, for custom videos: --mode custom_input --prompt_file

The list lies beside the videos: VBench takes the ending of the first file of a folder for that of all.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from st2v_jax.errors import BadInput
from st2v_jax.evaluation.given_videos import GivenVideo
from st2v_jax.storage.atomic import beside, write_bytes
from st2v_jax.storage.names import fit

LIST = 'prompts.json'


def write(folder: str | Path, videos: Sequence[GivenVideo]) -> Path:
    """Writes the folder, and returns that of the videos. They are links to the files, or copies where links cannot be.

    Videos of one prompt are numbered from 0 in their order. A slash, which no name can have, becomes a space, and a
    long prompt is cut; prompts.json has the whole one.

    Raises BadInput for a video without a prompt and for a folder of frames, before anything is written.
    """
    for video in videos:
        if video.prompt is None:
            raise BadInput(f'VBench needs the prompt of every video, and {video.file} has none: --prompts FILE')
        if video.path.is_dir():
            raise BadInput(f'VBench reads files, and {video.file} is a folder of frames')
    into = Path(folder, 'videos')
    into.mkdir(parents=True, exist_ok=True)
    counts, prompts = {}, {}
    for video in videos:
        prompt = ' '.join(video.prompt.replace('/', ' ').split())
        ending = video.path.suffix.lower()
        beginning = fit(prompt, f'-{len(videos)}{ending}').removesuffix(f'-{len(videos)}{ending}')
        index = counts[beginning] = counts.get(beginning, -1) + 1
        name = f'{beginning}-{index}{ending}'
        _place(video.path, into / name)
        prompts[name] = video.prompt
    write_bytes(Path(folder, LIST), (json.dumps(prompts, indent=1) + '\n').encode())
    return into


def _place(source, name):
    """Makes a link to a file, or a copy; replaces an older link, and no file of somebody else."""
    if name.exists() and not name.is_symlink():
        if name.stat().st_size == source.stat().st_size:
            return
        raise BadInput(f'{name} is there already, and it is not {source}')
    part = beside(name)
    try:
        os.symlink(source.resolve(), part)
    except OSError:  # no links on this file system
        shutil.copyfile(source, part)
    os.replace(part, name)
