"""Randomized blending beside its ablations on the same videos, in numbers and pictures: docs/refinement.md.

The videos are the Video-LDM's, and the world's own at the same size, of which the truth at the larger size is known.
Every number of a refined video stands beside that of its input, enlarged as refinement enlarges it.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from st2v_jax.evaluation import sheets
from st2v_jax.metrics.sharpness import psnr, sharpness
from st2v_jax.metrics.steadiness import border_ratio, flow_magnitudes, frame_changes
from st2v_jax.refinement import enhancer as video_to_video
from st2v_jax.refinement.canvas import place
from st2v_jax.video_io import to_floats, to_uint8

VARIANTS = ('B', 'B+S', 'paper', 'release')
PICTURES = 4  # videos on the sheets
QUALITY = 88  # of the sheets as JPEG, a tenth of what they take as PNG


def refined(enhancer, videos, prompts, variant, *, seed, on_video=lambda: None, **settings):
    """uint8 videos [n, f, H, W, 3] of n videos [n, f, h, w, 3] and their prompts, refined in one way.

    All chunks of a video are computed together. A video's noise depends on `seed` and its number.
    """
    made = []
    count = enhancer.settings(**settings).plan(videos.shape[1]).count
    for number, (video, prompt) in enumerate(zip(videos, prompts)):
        # All variants enlarge alike, or the comparison would be one of enlargements.
        pieces = video_to_video.enhance(enhancer, video, prompt, seed=seed + number, profile='paper', variant=variant,
                                        group=count, span=count, decode_frames=min(80, len(video)), **settings)
        made.append(to_uint8(np.concatenate(list(pieces))))
        on_video()
    return np.stack(made)


def all_refined(enhancer, videos, prompts, variants, **options):
    """{variant: `refined` videos}; the variants are compiled side by side."""
    enhancer.tokenizer.ids(prompts[:1])  # transformers does not let several threads import it
    with ThreadPoolExecutor(len(variants)) as pool:
        futures = {variant: pool.submit(refined, enhancer, videos, prompts, variant, **options)
                   for variant in variants}
        return {variant: future.result() for variant, future in futures.items()}


def enlarged(enhancer, videos):
    """uint8 videos [n, f, H, W, 3]: as refinement enlarges them, before any noise."""
    canvas = enhancer.canvas(videos.shape[2:4])
    (top, left), (height, width) = canvas.corner, canvas.size
    large = [np.asarray(place(to_floats(video), canvas)) for video in videos]
    return to_uint8(np.stack(large)[:, :, top : top + height, left : left + width])


def measured(videos, plan, inputs, truth=None):
    """Numbers of uint8 videos [n, f, H, W, 3], each {name: [n]}; inputs and truth [n, f, H, W, 3].

    flow_deviation, flow: standard deviation and mean over time of the mean flow magnitude, pixels a frame.
    border_ratio: change between consecutive frames where chunks are joined, divided by that elsewhere.
    change: that change, in grey values. sharpness: also in grey values. psnr_input: to the input, in dB.
    psnr_truth: to the truth, in dB.
    """
    rows = []
    for number, video in enumerate(videos):
        magnitudes, changes = flow_magnitudes(video), frame_changes(video)
        row = {'flow_deviation': float(magnitudes.std()), 'flow': float(magnitudes.mean()),
               'border_ratio': border_ratio(changes, plan), 'change': float(changes.mean()),
               'sharpness': sharpness(video), 'psnr_input': psnr(video, inputs[number])}
        rows.append(row | ({} if truth is None else {'psnr_truth': psnr(video, truth[number])}))
    return {name: [row[name] for row in rows] for name in rows[0]}


def compared(inputs, made, plan, truth=None):
    """{kind: `measured`} of the enlarged input, every variant and, where it is known, the truth."""
    kinds = {'input': inputs, **made} | ({} if truth is None else {'truth': truth})
    with ThreadPoolExecutor() as pool:
        futures = {kind: pool.submit(measured, videos, plan, inputs, truth) for kind, videos in kinds.items()}
        return {kind: future.result() for kind, future in futures.items()}


def draw(folder, name, kinds, prompts, numbers):
    """Writes <name>-slices.jpg and <name>-frames.jpg of {kind: videos}; [{'file', 'title', 'text'}] for the page."""
    shown = {kind: videos[:PICTURES] for kind, videos in kinds.items()}
    slices = [video for same in zip(*shown.values()) for video in same]
    labels = [f'{kind}: {prompt}' for prompt in prompts[:PICTURES] for kind in shown]
    sheets.slice_sheet(slices, labels, columns=len(shown)).save(folder / f'{name}-slices.jpg', quality=QUALITY)
    rows = [(videos[i], f'{kind}: {prompts[i]}') for i in range(len(slices) // len(shown))
            for kind, videos in shown.items() if kind not in ('B+S', 'release')]
    sheets.contact_sheet([row for row, _ in rows], numbers, [label for _, label in rows]).save(
        folder / f'{name}-frames.jpg', quality=QUALITY)
    columns = ', '.join(shown)
    return [
        {'file': f'{name}-slices.jpg', 'title': f'X-T slices of {name} videos',
         'text': f'The middle row of every frame, time downwards, from left to right: {columns}. Where chunks do not '
                 'fit together, lines break.'},
        {'file': f'{name}-frames.jpg', 'title': f'frames of {name} videos', 'text': 'Frames as numbered.'},
    ]
