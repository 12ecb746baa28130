"""An enhancement for a process of its own, which may be killed while it runs."""

import os
from pathlib import Path

import numpy as np


def moving(frames: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """uint8 [n, H, W, 3]: a bright square moves over a dark ground."""
    video = np.full((frames, *size, 3), 40, np.uint8)
    for number, frame in enumerate(video):
        frame[8:16, number % 20 : number % 20 + 8] = (220, 90, 60)
    return video


def enhance(weights: Path, folder: Path, steps: int) -> None:
    """Enhances 60 frames in `folder`, and writes them beside it: folder.npy; each span adds a byte to folder.spans."""
    from st2v_jax import PromptSchedule, load_enhancer
    from st2v_jax.refinement import enhancer, sdedit

    run = sdedit.span_step

    def counted(*arguments):
        with open(f'{folder}.spans', 'ab') as file:
            file.write(b'.')
        return run(*arguments)

    sdedit.span_step = counted
    prompt = PromptSchedule('a red ball moves left', ((30, 'a blue star'),), blend_frames=8)
    settings = dict(folder=folder, keep='moving', steps=steps, span=2)
    frames = np.concatenate(list(enhancer.enhance(load_enhancer(weights), moving(60), prompt, **settings)))
    np.save(f'{folder}.part.npy', frames)
    os.replace(f'{folder}.part.npy', f'{folder}.npy')
