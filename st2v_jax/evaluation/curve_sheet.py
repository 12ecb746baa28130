"""A picture of the curves of measured videos: one panel a curve, frames to the right."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from st2v_jax.evaluation.results import Record
from st2v_jax.evaluation.sheets import BACKGROUND, GAP, INK, LINE, fitted

PANEL = (480, 120)  # pixels of a panel, width and height
EACH, MEAN = (185, 200, 220), (200, 60, 30)  # colours of single videos and of their mean
COLUMNS = 2


def curve_sheet(records: Sequence[Record]) -> Image.Image | None:
    """Draws every curve of all videos thin, and their mean; None without a curve.

    Each panel says the range of its axis. What is not a value for each frame or pair, such as the cuts or the features
    of FVD, is left out.
    """
    curves = {}
    for record in records:
        for name, found in record['measured'].items():
            for curve, values in found['curves'].items():
                if found['numbers'] and len(values) in (record['frames'], record['frames'] - 1):
                    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
                    curves.setdefault(f'{name}: {curve}', []).append(numbers)
    if not curves:
        return None
    rows, (width, height) = -(-len(curves) // COLUMNS), PANEL
    sheet = Image.new('RGB', (COLUMNS * (width + GAP) + GAP, rows * (LINE + height + GAP) + GAP), BACKGROUND)
    for number, (title, some) in enumerate(curves.items()):
        corner = GAP + number % COLUMNS * (width + GAP), GAP + number // COLUMNS * (LINE + height + GAP)
        _panel(ImageDraw.Draw(sheet), corner, title, some)
    return sheet


def _panel(draw, corner, title, curves):
    left, top = corner
    longest = max(map(len, curves))
    padded = np.full((len(curves), longest), np.nan)
    for row, curve in zip(padded, curves):
        row[: len(curve)] = curve
    known = np.isfinite(padded)
    low, high = (float(padded[known].min()), float(padded[known].max())) if known.any() else (0.0, 0.0)
    text = f'{title}, {low:.4g} to {high:.4g}, {longest} values of {len(curves)} videos'
    draw.text((left, top), fitted(draw, text, PANEL[0]), INK)
    top += LINE
    draw.rectangle((left, top, left + PANEL[0] - 1, top + PANEL[1] - 1), outline=EACH)
    counts = known.sum(0)
    mean = np.where(known, padded, 0).sum(0) / np.where(counts, counts, np.nan)
    for curve, colour in (*((row, EACH) for row in padded), (mean, MEAN)):
        x = left + np.arange(longest) / max(longest - 1, 1) * (PANEL[0] - 1)
        y = top + PANEL[1] - 1 - (curve - low) / ((high - low) or 1.0) * (PANEL[1] - 1)
        for run in np.ma.clump_unmasked(np.ma.masked_invalid(curve)):
            points = list(zip(x[run].tolist(), y[run].tolist()))
            draw.line(points if len(points) > 1 else points * 2, colour)
