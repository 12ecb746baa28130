"""Compares randomized blending with its ablations on the same videos, in numbers and pictures: docs/refinement.md.

The videos are those of the streaming stage, and ground-truth videos of the world at the same size, for which the truth
at the larger size is known. The input, enlarged as refinement enlarges it, is measured too.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from st2v_jax.evaluation import generation, pictures, record, sheets, survey
from st2v_jax.metrics.sharpness import psnr, sharpness
from st2v_jax.metrics.steadiness import border_ratio, flow_lengths, frame_changes
from st2v_jax.refinement.blend import VARIANTS, Plan
from st2v_jax.refinement.canvas import to_canvas
from st2v_jax.refinement.enhancer import Enhancer, enhance, load_enhancer
from st2v_jax.streaming.generate import load
from st2v_jax.video_io import to_floats, to_uint8

PICTURES = 4  # videos on the sheets
QUALITY = 88  # of the sheets as JPEG files, which take a tenth of the space of PNG files


def study(
    out: str | Path,
    *,
    folder: str | Path | None = None,
    videos_file: str | Path | None = None,
    captions: int,
    world: int,
    frames: int,
    batch: int,
    seed: int,
    variants: Sequence[str] = VARIANTS,
    dtype: str | None = None,
    command: str = '',
    **chosen: Any,
) -> None:
    """Refines generated videos and ground-truth videos, measures and draws them.

    Args:
      out: folder for results.json and pictures.
      folder: weights with a Refiner; None takes the small model.
      videos_file: of kept videos; None lets the model make videos.
      captions: number of videos at most.
      world: how many ground-truth videos of the same scenes are refined too.
      frames: of each video that the model makes.
      batch: videos that the model makes at once.
      seed: of the world and of the noise.
      variants: how chunks are joined, a part of VARIANTS.
      dtype: that networks compute in; None takes that of the device.
      command: stored with the results.
      chosen: fields of `RefineSettings`.
    """
    dtype, out = record.network_dtype(dtype), Path(out)
    enhancer = load_enhancer(folder, dtype)
    settings = enhancer.settings(**chosen)
    for variant in variants:
        enhancer.settings(**chosen, variant=variant)  # raises ValueError if there is no such variant
    out.mkdir(parents=True, exist_ok=True)
    if videos_file is not None:
        videos, indices, seed_of_world = pictures.kept(videos_file)
        videos, scenes = videos[:captions], survey.many_scenes(seed_of_world, indices[:captions])
    else:
        indices, scenes = survey.unseen_scenes(seed, captions)
        model = load(folder, dtype)
        videos = generation.make_videos(
            model, model.settings(), survey.captions(scenes), frames, seed=seed, batch=batch
        )
        pictures.keep(out / 'videos.npz', videos, indices, seed)
    prompts, plan = survey.captions(scenes), settings.plan(videos.shape[1])
    *numbers, last = generation.shown(plan.frames)
    numbers = [*numbers[::2], last]
    known = jax.tree.map(lambda leaf: np.asarray(leaf)[:world], scenes)
    small, large = videos.shape[2], enhancer.canvas(videos.shape[2:4]).size[0]
    began = time.monotonic()
    results = {}
    for name, inputs, truth in (
        ('generated', videos, None),
        ('world', *(survey.rendering(known, range(plan.frames), size) for size in (small, large))),
    ):
        made = all_refined(enhancer, inputs, prompts, variants, seed=seed, **chosen)
        inputs = enlarged(enhancer, inputs)
        kinds = {'input': inputs, **made} | ({} if truth is None else {'truth': truth})
        print(f'{name}: {len(inputs)} videos refined after {time.monotonic() - began:.0f} s', flush=True)
        results[name] = {
            'kinds': compared(kinds, borders(plan)),
            'pictures': draw(out, name, kinds, prompts[: len(inputs)], numbers),
        }
        for kind, found in results[name]['kinds'].items():
            print(f'  {kind}: ' + ', '.join(f'{row} {np.mean(values):.3f}' for row, values in found.items()))
    results = {
        'made': record.made(command)
        | {
            'dtype': np.dtype(dtype).name,
            'videos': len(videos),
            'frames': plan.frames,
            'size': [small, large],
            'seed': seed,
            'settings': vars(settings),
            'captions': prompts,
            'seconds': time.monotonic() - began,
        }
    } | results
    record.write(out / 'results.json', results)
    print(f'results: {out / "results.json"}')


def borders(plan: Plan) -> np.ndarray:
    """Where chunks are joined without blending: [k] indices of changes from one frame to the next.

    `blend.join` puts the border of the ablations after the last frame of the left chunk.
    """
    return plan.indices[:-1, -1]


def refined(
    enhancer: Enhancer, videos: np.ndarray, prompts: Sequence[str], variant: str, *, seed: int, **settings: Any
) -> np.ndarray:
    """Refines videos [n, f, h, w, 3] with their prompts in one variant; returns uint8 videos [n, f, H, W, 3].

    All chunks of a video are computed together. The noise of a video depends on `seed` and its index.
    """
    made = []
    count = enhancer.settings(**settings).plan(videos.shape[1]).count
    for number, (video, prompt) in enumerate(zip(videos, prompts)):
        # All variants enlarge in the same way; otherwise, enlargements would be compared.
        pieces = enhance(
            enhancer,
            video,
            prompt,
            seed=seed + number,
            profile='paper',
            variant=variant,
            group=count,
            span=count,
            decode_frames=min(80, len(video)),
            **settings,
        )
        made.append(to_uint8(np.concatenate(list(pieces))))
    return np.stack(made)


def all_refined(
    enhancer: Enhancer, videos: np.ndarray, prompts: Sequence[str], variants: Sequence[str], **options: Any
) -> dict[str, np.ndarray]:
    """The `refined` videos of each variant; the variants are compiled in parallel."""
    with ThreadPoolExecutor(len(variants)) as pool:
        futures = {variant: pool.submit(refined, enhancer, videos, prompts, variant, **options) for variant in variants}
        return {variant: future.result() for variant, future in futures.items()}


def enlarged(enhancer: Enhancer, videos: np.ndarray) -> np.ndarray:
    """Enlarges videos as refinement does, before any noise; returns uint8 [n, f, H, W, 3]."""
    canvas = enhancer.canvas(videos.shape[2:4])
    (top, left), (height, width) = canvas.corner, canvas.size
    large = [np.asarray(to_canvas(to_floats(video), canvas)) for video in videos]
    return to_uint8(np.stack(large)[:, :, top : top + height, left : left + width])


def measured(
    videos: np.ndarray, borders: np.ndarray, inputs: np.ndarray, truth: np.ndarray | None = None
) -> dict[str, list[float]]:
    """Measures uint8 videos [n, f, H, W, 3]; inputs and truth have the same shape.

    Returns:
      {name: [n]}, where the names are
      flow_deviation: standard deviation over time of the mean length of the flow, in pixels per frame;
      flow: its mean over time;
      border_ratio: change between consecutive frames where chunks are joined, divided by the change elsewhere;
      change: that change, in grey values;
      sharpness: see metrics/sharpness.py, in grey values;
      psnr_input: compared with the input, in dB;
      psnr_truth: compared with the truth, in dB, if it is known.
    """
    rows = []
    for number, video in enumerate(videos):
        lengths, changes = flow_lengths(video), frame_changes(video)
        row = {
            'flow_deviation': float(lengths.std()),
            'flow': float(lengths.mean()),
            'border_ratio': border_ratio(changes, borders),
            'change': float(changes.mean()),
            'sharpness': sharpness(video),
            'psnr_input': psnr(video, inputs[number]),
        }
        rows.append(row | ({} if truth is None else {'psnr_truth': psnr(video, truth[number])}))
    return {name: [row[name] for row in rows] for name in rows[0]}


def compared(kinds: dict[str, np.ndarray], borders: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """`measured` for each kind of video: the enlarged 'input', the variants and, if it is known, the 'truth'."""
    with ThreadPoolExecutor() as pool:
        futures = {
            kind: pool.submit(measured, videos, borders, kinds['input'], kinds.get('truth'))
            for kind, videos in kinds.items()
        }
        return {kind: future.result() for kind, future in futures.items()}


def draw(
    folder: Path, name: str, kinds: dict[str, np.ndarray], prompts: Sequence[str], numbers: Sequence[int]
) -> list[dict[str, str]]:
    """Writes <name>-slices.jpg and <name>-frames.jpg; returns [{'file', 'title', 'text'}] for the page.

    kinds: videos by kind. numbers: of the frames to show, counted from 1.
    """
    shown = {kind: videos[:PICTURES] for kind, videos in kinds.items()}
    slices = [video for same in zip(*shown.values()) for video in same]
    labels = [f'{kind}: {prompt}' for prompt in prompts[:PICTURES] for kind in shown]
    sheets.slice_sheet(slices, labels, columns=len(shown)).save(folder / f'{name}-slices.jpg', quality=QUALITY)
    rows = [
        (videos[i], f'{kind}: {prompts[i]}')
        for i in range(len(slices) // len(shown))
        for kind, videos in shown.items()
        if kind not in ('B+S', 'release')
    ]
    sheets.contact_sheet([row for row, _ in rows], numbers, [label for _, label in rows]).save(
        folder / f'{name}-frames.jpg', quality=QUALITY
    )
    columns = ', '.join(shown)
    return [
        {
            'file': f'{name}-slices.jpg',
            'title': f'X-T slices of {name} videos',
            'text': 'The middle row of each frame, with time running downwards. From left to right: '
            f'{columns}. Lines break where chunks do not fit together.',
        },
        {
            'file': f'{name}-frames.jpg',
            'title': f'frames of {name} videos',
            'text': 'Some frames of each video; the number of the frame is above.',
        },
    ]
