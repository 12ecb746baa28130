"""Pictures of videos: contact sheets, and X-T slices that show motion, freezing and flicker as texture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from st2v_jax.video_io import to_uint8

GAP = 4  # pixels between pictures
LINE = 14  # height of a line of text in the default font of pillow
BACKGROUND = (255, 255, 255)
INK = (20, 20, 20)


def contact_sheet(videos: Sequence[np.ndarray], numbers: Sequence[int], labels: Sequence[str]) -> Image.Image:
    """Draws videos as rows and some of their frames as columns, with a label above each row.

    Args:
      videos: arrays [f, h, w, 3]; f may differ between videos, h and w may not.
      numbers: of the frames to show, counted from 1.
      labels: one for each video.
    """
    if len(videos) != len(labels):
        raise ValueError(f'{len(videos)} videos need {len(videos)} labels, got {len(labels)}')
    for video in videos:
        if min(numbers) < 1 or max(numbers) > len(video):
            raise ValueError(f'frame numbers go from 1 to {len(video)}, got {list(numbers)}')
    h, w = videos[0].shape[1:3]
    row = LINE + h + GAP
    sheet = Image.new('RGB', (len(numbers) * (w + GAP) + GAP, LINE + len(videos) * row + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for j, number in enumerate(numbers):
        draw.text((GAP + j * (w + GAP), 1), f'frame {number}' if j == 0 else str(number), INK)
    for i, (video, label) in enumerate(zip(videos, labels)):
        top = LINE + i * row
        draw.text((GAP, top + 1), fitted(draw, label, sheet.width - 2 * GAP), INK)
        for j, number in enumerate(numbers):
            sheet.paste(Image.fromarray(to_uint8(video[number - 1])), (GAP + j * (w + GAP), top + LINE))
    return sheet


def fitted(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Cuts text so that it is at most `width` pixels wide."""
    if draw.textlength(text) <= width:
        return text
    while text and draw.textlength(text + '...') > width:
        text = text[:-1]
    return text + '...'


def slice_over_time(video: np.ndarray, *, row: int | None = None, column: int | None = None) -> np.ndarray:
    """Stacks one row or one column of each frame over time: [f, h, w, 3] -> uint8 [f, w or h, 3].

    Time runs downwards. Motion shows as slanted lines, a frozen video as vertical ones; a cut or a jump breaks them.
    Exactly one of row and column must be given, counted from 0.
    """
    if (row is None) == (column is None):
        raise ValueError(f'a slice needs one row or one column, got row={row} and column={column}')
    video = np.asarray(video)
    return to_uint8(video[:, row] if column is None else video[:, :, column])


def slice_sheet(videos: Sequence[np.ndarray], labels: Sequence[str], *, columns: int = 4) -> Image.Image:
    """Draws the slices along the middle row of the videos in a grid, with a label above each."""
    slices = [slice_over_time(video, row=video.shape[1] // 2) for video in videos]
    h, w = max(len(s) for s in slices), slices[0].shape[1]
    columns = min(columns, len(slices))
    rows = -(-len(slices) // columns)
    sheet = Image.new('RGB', (columns * (w + GAP) + GAP, rows * (LINE + h + GAP) + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, (picture, label) in enumerate(zip(slices, labels, strict=True)):
        left, top = GAP + i % columns * (w + GAP), i // columns * (LINE + h + GAP)
        draw.text((left, top + 1), fitted(draw, label, w), INK)
        sheet.paste(Image.fromarray(picture), (left, top + LINE))
    return sheet
