"""The pictures of a study: contact sheets, slices, nearest training clips, and a few videos as JPEG frames."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from st2v_jax.data import world
from st2v_jax.data.world import Scene
from st2v_jax.evaluation import nearest, sheets, stored, survey
from st2v_jax.evaluation.checker import FRAMES
from st2v_jax.storage.atomic import replacing

QUALITY = 90  # of the JPEG frames, about 6 KB each at 128x128 pixels
SHEET_QUALITY = 85
STARTS = tuple(range(0, 1200, 150))  # first frames of the training clips that are compared


def draw(
    folder: Path,
    videos: np.ndarray,
    scenes: Scene,
    prompts: Sequence[str],
    numbers: Sequence[int],
    results: dict[str, Any],
    *,
    count: int,
) -> list[dict[str, str]]:
    """Writes contact-sheet.jpg, slices.jpg and nearest.jpg.

    Args:
      folder: where they are written.
      videos: uint8 [n, f, h, w, 3].
      scenes: of the videos, with a leading axis.
      prompts: of the videos.
      numbers: of the frames to show, counted from 1.
      results: of the study, with the nearest training clips or without.
      count: how many of the first videos are drawn.

    Returns:
      [{'file', 'title', 'text'}] for the page.
    """
    videos, prompts, size = videos[:count], prompts[:count], videos.shape[2]
    scenes = jax.tree.map(lambda leaf: np.asarray(leaf)[:count], scenes)
    made = [
        _save(
            folder,
            'contact-sheet.jpg',
            sheets.contact_sheet(videos, numbers, prompts),
            'contact sheet',
            f'Some frames of the first {len(videos)} videos; the number of the frame is above.',
        )
    ]
    truth = survey.rendering(scenes, range(videos.shape[1]), size)
    pairs, labels = [], []
    for video, real, prompt in zip(videos, truth, prompts):
        pairs += [video, real]
        labels += [prompt, 'ground truth']
    made.append(
        _save(
            folder,
            'slices.jpg',
            sheets.slice_sheet(pairs, labels, columns=8),
            'X-T slices',
            'The middle row of each frame, with time running downwards: each generated video, and to its right the '
            'ground truth of the same scene. Motion shows as slanted or wavy lines, freezing as vertical ones.',
        )
    )
    if 'nearest' in results:
        made.append(
            _save(
                folder,
                'nearest.jpg',
                nearest_sheet(videos, prompts, results['nearest'], size),
                'nearest training clips',
                'The beginning of some generated videos, each above the training clip nearest to it.',
            )
        )
    return made


def _save(folder, name, image, title, text):
    with replacing(folder / name) as file:  # a quarter of the bytes of a PNG file
        image.save(file, 'JPEG', quality=SHEET_QUALITY)
    return {'file': name, 'title': title, 'text': text}


def nearest_to(videos: np.ndarray, scenes: Scene, train_seed: int, count: int) -> dict[str, Any]:
    """The training clips nearest to the first 16 frames of the videos, and the distances of the ground truth."""
    size = videos.shape[2]
    clips = {'generated': videos[:, :FRAMES], 'truth': survey.rendering(scenes, range(FRAMES), size)}
    both = nearest.nearest(np.concatenate(list(clips.values())), train_seed, scenes=count, starts=STARTS)
    n = len(videos)
    return {
        'seed': train_seed,
        'scenes': count,
        'starts': list(STARTS),
        'index': both['index'][:n],
        'start': both['start'][:n],
        'distance': both['distance'][:n],
        'generated': float(np.median(both['distance'][:n])),
        'truth': float(np.median(both['distance'][n:])),
    }


def nearest_sheet(
    videos: np.ndarray, prompts: Sequence[str], found: dict[str, Any], size: int, count: int = 4
) -> Image.Image:
    """A sheet with pairs of rows: the first frames of a generated video, and the training clip nearest to them."""
    rows, labels = [], []
    for i, (video, prompt) in enumerate(list(zip(videos, prompts))[:count]):
        scene = world.scene(found['seed'], found['index'][i])
        frames = np.asarray(world.render(scene, found['start'][i] + np.arange(FRAMES), size))
        rows += [video[:FRAMES], frames]
        labels += [f'generated: {prompt}', f'training: {world.caption(scene)} (difference {found["distance"][i]:.1f})']
    return sheets.contact_sheet(rows, range(1, FRAMES + 1, 3), labels)


def keep(path: str | Path, videos: np.ndarray, indices: np.ndarray, seed: int) -> None:
    """Writes videos uint8 [n, f, h, w, 3] as JPEG frames to one npz file, with the indices of their scenes."""
    blobs = []
    for frame in videos.reshape(-1, *videos.shape[2:]):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, 'JPEG', quality=QUALITY, subsampling=0)
        blobs.append(np.frombuffer(buffer.getvalue(), np.uint8))
    about = {'lengths': [len(blob) for blob in blobs], 'shape': videos.shape[:2], 'indices': indices, 'seed': seed}
    with replacing(path) as file:
        np.savez(file, jpeg=np.concatenate(blobs), **about)


def kept(path: str | Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Reads (videos uint8 [n, f, h, w, 3], indices [n], seed) from a file written by `keep`.

    Raises BadInput for another file.
    """
    with stored.written(path, 'st2v evaluate generate'), open(path, 'rb') as stream, np.load(stream) as file:
        ends = np.cumsum(file['lengths'])
        jpeg = file['jpeg']
        frames = [np.asarray(Image.open(io.BytesIO(part.tobytes()))) for part in np.split(jpeg, ends[:-1])]
        videos = np.stack(frames).reshape(*file['shape'], *frames[0].shape)
        return videos, file['indices'], int(file['seed'])
