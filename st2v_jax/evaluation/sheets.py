"""Pictures of videos for the eye: contact sheets, and X-T slices that show motion, freezing and flicker as texture."""

import numpy as np
from PIL import Image, ImageDraw

from st2v_jax.video_io import to_uint8

GAP = 4  # pixels between pictures
LINE = 14  # height of a line of text in pillow's default font
BACKGROUND = (255, 255, 255)
INK = (20, 20, 20)


def contact_sheet(videos, numbers, labels):
    """Videos as rows, chosen frames as columns, the label of each video above its row.

    videos: a list of [f, h, w, 3] (lengths may differ, h and w not); numbers: frame numbers from 1 on; labels: one
    string a video. Returns a PIL image.
    """
    if len(videos) != len(labels):
        raise ValueError(f'{len(videos)} videos need as many labels, got {len(labels)}')
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


def fitted(draw, text, width):
    """text, cut so that it is at most width pixels wide."""
    if draw.textlength(text) <= width:
        return text
    while text and draw.textlength(text + '...') > width:
        text = text[:-1]
    return text + '...'


def slice_over_time(video, *, row=None, column=None):
    """One row (or column) of pixels of every frame, stacked over time: [f, h, w, 3] -> uint8 [f, w or h, 3].

    Time runs downwards. Motion draws slanted lines, a frozen video vertical ones, a cut or a jump breaks them.
    Exactly one of row and column is given, counted from 0.
    """
    if (row is None) == (column is None):
        raise ValueError(f'a slice takes one row or one column, got row={row} and column={column}')
    video = np.asarray(video)
    return to_uint8(video[:, row] if column is None else video[:, :, column])


def slice_sheet(videos, labels, *, columns=4):
    """The slice along the middle row of each video, with its label above, in a grid. Returns a PIL image."""
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
