"""The stored form of several methods on the same captions: numbers of every video as JSON, and two small pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.evaluation import results, sheets
from st2v_jax.evaluation.instruments import resized
from st2v_jax.evaluation.results import Record
from st2v_jax.storage.atomic import replacing, write_bytes
from st2v_jax.video_io import read_video

DIGITS = 4  # of a number that count
COLUMNS, SIDE, QUALITY = (8, 64, 120, 240), 96, 78  # frames on the pictures, their shorter side, the quality as JPEG
SHEET, SLICES = 2, 1  # videos on each picture
TALLEST = 300  # rows of a picture of slices; of longer videos it shows every second, third ... frame


def numbers(study: Mapping[str, Any], records: Sequence[Record]) -> dict[str, list[float | None]]:
    """{name: [n]} of the videos of a method: those of the metrics, and those of the checker as `all_240`.

    study: results.json of the method, see `survey.survey`. records: of its videos, in the same order.
    """
    found = [
        {f'{name}_{place}': value for place, at in video['at'].items() for name, value in at.items()}
        | results.numbers(record, [name for name in record['measured'] if name != 'last_window'])
        for video, record in zip(study['videos'], records, strict=True)
    ]
    short = lambda value: None if value is None else float(f'{value:.{DIGITS}g}')
    return {name: [short(row.get(name)) for row in found] for name in found[0]}


def write(
    path: str | Path,
    made: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, Any]],
    videos: Mapping[str, list[Path]],
) -> None:
    """Writes FILE.json, and beside it FILE-frames.jpg and FILE-slices.jpg.

    Args:
      path: of the JSON file.
      made: how it was made, with the 'prompts'.
      methods: {name: {'numbers': see `numbers`, and how the method works}}.
      videos: {name: files of its videos}, of which the first ones are drawn.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = {name: [np.asarray(read_video(file)) for file in files[:SHEET]] for name, files in videos.items()}
    draw(path, shown, made['prompts'])
    write_bytes(path, _lines({'made': made, 'methods': methods}).encode())


def draw(path: Path, videos: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str]) -> None:
    """Draws {method: videos [f, h, w, 3]}: rows of frames, the methods of a prompt together, and slices."""
    count = min(len(some) for some in videos.values())
    rows = [(some[i], f'{name}: {prompts[i]}') for i in range(count) for name, some in videos.items()]
    length = min(len(video) for video, _ in rows)
    columns = sorted({number for number in COLUMNS if number < length} | {length})
    labels = [label for _, label in rows]
    share = min(1, SIDE / min(rows[0][0].shape[1:3]))
    size = tuple(round(share * pixels) for pixels in rows[0][0].shape[1:3])
    images = {'frames': sheets.contact_sheet([resized(video, size) for video, _ in rows], columns, labels)}
    few = len(videos) * SLICES
    slices = [video[: length : -(-length // TALLEST)] for video, _ in rows[:few]]
    images['slices'] = sheets.slice_sheet(slices, labels[:few], columns=few)
    for kind, image in images.items():
        with replacing(path.with_name(f'{path.stem}-{kind}.jpg')) as file:
            image.save(file, 'JPEG', quality=QUALITY)


def _lines(values, depth=4):
    """JSON with a line for each value of the dicts down to a depth, so that lists of numbers are one line each."""
    if not depth or not isinstance(values, Mapping) or not values:
        return json.dumps(values, allow_nan=False)
    return '{\n' + ',\n'.join(f'{json.dumps(key)}: {_lines(value, depth - 1)}' for key, value in values.items()) + '\n}'
