"""Randomized blending beside its ablations on the same videos, in numbers and pictures: docs/refinement.md.

The videos are the Video-LDM's, and the world's own at the same size, of which the truth at the larger size is known.
Every number of a refined video stands beside that of its input, enlarged as refinement enlarges it.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from st2v_jax.evaluation import generation, pictures, record, sheets, survey
from st2v_jax.metrics.sharpness import psnr, sharpness
from st2v_jax.metrics.steadiness import border_ratio, flow_lengths, frame_changes
from st2v_jax.refinement.blend import VARIANTS
from st2v_jax.refinement.canvas import to_canvas
from st2v_jax.refinement.enhancer import enhance, load_enhancer
from st2v_jax.streaming.generate import load
from st2v_jax.video_io import to_floats, to_uint8

PICTURES = 4  # videos on the sheets
QUALITY = 88  # of the sheets as JPEG, a tenth of what they take as PNG


def study(
    out,
    *,
    folder=None,
    videos_file=None,
    captions,
    world,
    frames,
    batch,
    seed,
    variants=VARIANTS,
    dtype=None,
    command='',
    **chosen,
):
    """Refines generated videos, and videos of the world whose larger truth is known; writes all of it into `out`.

    folder: of the model; None is the shipped one. videos_file: of kept videos, of which `captions` at most are refined;
    for None the model makes as many, of so many `frames`, `batch` at once. world: how many of their scenes are refined
    as the world draws them. seed: of the world and of the noise. chosen: of `RefineSettings`.
    """
    dtype, out = record.network_dtype(dtype), Path(out)
    enhancer = load_enhancer(folder, dtype)
    settings = enhancer.settings(**chosen)
    for variant in variants:
        enhancer.settings(**chosen, variant=variant)  # raises where there is no such variant
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


def borders(plan):
    """[k] numbers of the changes from frame to frame at which chunks that know nothing of each other are joined.

    That is where `blend.join` puts the border of the baselines, behind the last frame of the left chunk.
    """
    return plan.indices[:-1, -1]


def refined(enhancer, videos, prompts, variant, *, seed, **settings):
    """uint8 videos [n, f, H, W, 3] of n videos [n, f, h, w, 3] and their prompts, refined in one way.

    All chunks of a video are computed together. A video's noise depends on `seed` and its number.
    """
    made = []
    count = enhancer.settings(**settings).plan(videos.shape[1]).count
    for number, (video, prompt) in enumerate(zip(videos, prompts)):
        # All variants enlarge alike, or the comparison would be one of enlargements.
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


def all_refined(enhancer, videos, prompts, variants, **options):
    """{variant: `refined` videos}; the variants are compiled side by side."""
    enhancer.tokenizer.ids(prompts[:1])  # transformers does not let several threads import it
    with ThreadPoolExecutor(len(variants)) as pool:
        futures = {variant: pool.submit(refined, enhancer, videos, prompts, variant, **options) for variant in variants}
        return {variant: future.result() for variant, future in futures.items()}


def enlarged(enhancer, videos):
    """uint8 videos [n, f, H, W, 3]: as refinement enlarges them, before any noise."""
    canvas = enhancer.canvas(videos.shape[2:4])
    (top, left), (height, width) = canvas.corner, canvas.size
    large = [np.asarray(to_canvas(to_floats(video), canvas)) for video in videos]
    return to_uint8(np.stack(large)[:, :, top : top + height, left : left + width])


def measured(videos, borders, inputs, truth=None):
    """Numbers of uint8 videos [n, f, H, W, 3], each {name: [n]}; inputs and truth [n, f, H, W, 3].

    flow_deviation, flow: standard deviation and mean over time of the mean flow magnitude, pixels a frame.
    border_ratio: change between consecutive frames where chunks are joined, divided by that elsewhere.
    change: that change, in grey values. sharpness: also in grey values. psnr_input: to the input, in dB.
    psnr_truth: to the truth, in dB.
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


def compared(kinds, borders):
    """{kind: `measured`} of {kind: videos}: the enlarged 'input', every variant and, where it is known, the 'truth'."""
    with ThreadPoolExecutor() as pool:
        futures = {
            kind: pool.submit(measured, videos, borders, kinds['input'], kinds.get('truth'))
            for kind, videos in kinds.items()
        }
        return {kind: future.result() for kind, future in futures.items()}


def draw(folder, name, kinds, prompts, numbers):
    """Writes <name>-slices.jpg and <name>-frames.jpg of {kind: videos}; [{'file', 'title', 'text'}] for the page."""
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
            'text': 'The middle row of every frame, time downwards, from left to right: '
            f'{columns}. Where chunks do not fit together, lines break.',
        },
        {'file': f'{name}-frames.jpg', 'title': f'frames of {name} videos', 'text': 'Frames as numbered.'},
    ]
