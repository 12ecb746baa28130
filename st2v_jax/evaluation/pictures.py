"""What an evaluation keeps for the eye: sheets, slices, nearest training clips, and a few videos as JPEG frames."""

import io

import jax
import numpy as np
from PIL import Image

from st2v_jax.data import world
from st2v_jax.evaluation import nearest, sheets, survey
from st2v_jax.evaluation.checker import FRAMES

QUALITY = 90  # of JPEG frames: about 6 KB each at 128x128
STARTS = tuple(range(0, 1200, 150))  # times at which training scenes are compared


def draw(folder, videos, scenes, prompts, numbers, results, *, count):
    """Writes contact-sheet.png, slices.png and nearest.png into folder; [{'file', 'title', 'text'}] for the page.

    videos [n, f, h, w, 3]; numbers: the frames shown, counted from 1; the first `count` videos are drawn.
    """
    videos, prompts, size = videos[:count], prompts[:count], videos.shape[2]
    scenes = jax.tree.map(lambda leaf: np.asarray(leaf)[:count], scenes)
    made = [
        _save(
            folder,
            'contact-sheet.png',
            sheets.contact_sheet(videos, numbers, prompts),
            'contact sheet',
            f'The first {len(videos)} videos, frame by frame as numbered.',
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
            'slices.png',
            sheets.slice_sheet(pairs, labels, columns=8),
            'X-T slices',
            'The middle row of every frame, time downwards: each generated video with the rendering of the '
            'same scene to its right. Motion draws slanted or waving lines, freezing vertical ones.',
        )
    )
    if 'nearest' in results:
        made.append(
            _save(
                folder,
                'nearest.png',
                nearest_sheet(videos, prompts, results['nearest'], size),
                'nearest training clips',
                'The beginning of generated videos, and under each the training clip nearest to it.',
            )
        )
    return made


def _save(folder, name, image, title, text):
    image.save(folder / name, optimize=True)
    return {'file': name, 'title': title, 'text': text}


def nearest_to(videos, scenes, train_seed, count):
    """The nearest training clips of the videos' first 16 frames, and how near renderings of the same scenes come."""
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


def nearest_sheet(videos, prompts, found, size, count=4):
    """Rows in pairs: the first frames of a generated video, and the training clip nearest to them."""
    rows, labels = [], []
    for i, (video, prompt) in enumerate(list(zip(videos, prompts))[:count]):
        scene = world.scene(found['seed'], found['index'][i])
        frames = np.asarray(world.render(scene, found['start'][i] + np.arange(FRAMES), size))
        rows += [video[:FRAMES], frames]
        labels += [f'generated: {prompt}', f'training: {world.caption(scene)} (difference {found["distance"][i]:.1f})']
    return sheets.contact_sheet(rows, range(1, FRAMES + 1, 3), labels)


def keep(path, videos, indices, seed):
    """Writes videos [n, f, h, w, 3] with the numbers of their scenes in the world `seed` to one npz of JPEG frames."""
    blobs = []
    for frame in videos.reshape(-1, *videos.shape[2:]):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, 'JPEG', quality=QUALITY, subsampling=0)
        blobs.append(np.frombuffer(buffer.getvalue(), np.uint8))
    np.savez(
        path,
        jpeg=np.concatenate(blobs),
        lengths=[len(blob) for blob in blobs],
        shape=videos.shape[:2],
        indices=indices,
        seed=seed,
    )


def kept(path):
    """-> (videos [n, f, h, w, 3] uint8, indices [n], seed) of a file written by keep."""
    with np.load(path) as file:
        ends = np.cumsum(file['lengths'])
        jpeg = file['jpeg']
        frames = [np.asarray(Image.open(io.BytesIO(part.tobytes()))) for part in np.split(jpeg, ends[:-1])]
        videos = np.stack(frames).reshape(*file['shape'], *frames[0].shape)
        return videos, file['indices'], int(file['seed'])
