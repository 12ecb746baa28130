"""Turns captioned videos into clips for training: cut at scene changes, sampled, cropped, none of them still.

Videos are processed in the order of the captions file, a fixed number for each shard. A shard is written under a
temporary name. Its report, `00000.json`, is renamed into place last and marks the shard as finished, so a run that is
killed loses only the current shard.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from st2v_jax import stopping
from st2v_jax.data import clips
from st2v_jax.errors import InputError
from st2v_jax.metrics.flow import flow, flow_length
from st2v_jax.storage.atomic import write_bytes
from st2v_jax.storage.text import read_object, read_objects
from st2v_jax.video_io import nearest, timed_frames

SETTINGS = 'settings.json'
SKIPPED = 'skipped.jsonl'


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides how clips are made; stored beside them.

    Attributes:
      frames: frames of a clip. The stage cam needs 16, apm 32.
      fps: frames per second of a clip.
      size: (height, width) of its frames.
      min_motion: clips whose optical flow has a smaller mean length, in pixels per frame, stand still.
      videos_per_shard: how many videos share a file.
    """

    frames: int = 16
    fps: float = 3.0
    size: tuple[int, int] = (256, 256)
    min_motion: float = 0.3
    videos_per_shard: int = 100


class Entry(NamedTuple):
    """One line of the captions file."""

    file: str
    caption: str


class Outcome(NamedTuple):
    """The result of one video.

    Attributes:
      records: its clips as bytes.
      still: number of clips that were dropped because they stand still.
      reason: why there are no records, or None.
    """

    records: list
    still: int
    reason: str | None


def read_captions(path: str | Path) -> list[Entry]:
    """Reads a file with a line {"file": "boat.mp4", "caption": "a boat on a lake"} for each video.

    Raises ValueError with file and line for what is no such line, and for one that repeats another.
    """
    lines = {}
    for number, values in read_objects(path):
        entry = Entry(values.get('file'), values.get('caption'))
        if not all(isinstance(value, str) and value.strip() and _is_unicode(value) for value in entry):
            shown = json.dumps(values, ensure_ascii=True)[:60]
            raise ValueError(
                f'{path}, line {number}: a line must be {{"file": "...", "caption": "..."}}, not {shown!r}'
            )
        if entry in lines:
            raise ValueError(f'{path}, line {number}: the same file and caption as in line {lines[entry]}')
        lines[entry] = number
    if not lines:
        raise ValueError(f'{path} names no videos')
    return list(lines)


def _is_unicode(text):
    """Whether a text has no half of a surrogate pair, which JSON can spell and no file or caption can hold."""
    return text.isascii() or not any('\ud800' <= character <= '\udfff' for character in text)


def prepare(
    folder: str | Path,
    entries: list[Entry],
    output: str | Path,
    settings: Settings,
    *,
    encoder: Callable[[bytes], bytes] | None = None,
    apply: Callable = map,
    done: Callable[[int], None] = lambda count: None,
) -> dict[str, int]:
    """Writes the clips of the videos in `folder` to `output`.

    Args:
      folder: where the files of the entries are.
      entries: lines of the captions file.
      output: folder to write.
      settings: how clips are made.
      encoder: an `encoding.Encoder`, which works in this process while others decode; None stores only frames.
      apply: map, or a map over several processes; results come in the order of the videos.
      done: called with the number of finished videos.

    Returns:
      Counts by name: 'videos', 'samples' (the clips), 'still' (clips dropped), 'skipped' (videos without clips).

    Raises ValueError if `output` was begun with other settings or captions.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    encoded = encoder.fingerprint if encoder else None
    _claim(output, _listed(settings) | {'captions': _digest(entries), 'encoded': encoded})
    reports = {}
    for first in range(0, len(entries), settings.videos_per_shard):
        shard = entries[first : first + settings.videos_per_shard]
        file = output / f'{first // settings.videos_per_shard:05d}.array_record'
        report = file.with_suffix('.json')
        if not _is_finished(report, file):
            outcomes = apply(partial(clips_of, folder=folder, settings=settings), shard)
            clips.write_json(report, _write(file, shard, outcomes, first, encoder, done))
        reports[file.name] = read_object(report)
        done(first + len(shard))
    skipped = [line for report in reports.values() for line in report['skipped']]
    total = {name: sum(report[name] for report in reports.values()) for name in ('samples', 'still')}
    lines = ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in skipped)
    write_bytes(output / SKIPPED, lines.encode())
    shards = {name: report['samples'] for name, report in reports.items() if report['samples']}
    if shards:
        about = {'settings': _listed(settings), 'samples': total['samples'], 'shards': shards}
        clips.write_json(output / clips.INDEX, about | ({'encoded': encoded} if encoded else {}))
    return {'videos': len(entries), **total, 'skipped': len(skipped)}


def _listed(settings):
    """The settings as they are read back from JSON."""
    return dataclasses.asdict(settings) | {'size': list(settings.size)}


def _claim(output, wanted):
    """Records what the folder will hold; raises ValueError if it was begun with something else."""
    file = output / SETTINGS
    if not file.is_file():
        if any(output.glob('*.array_record')) or any((output / name).exists() for name in (clips.INDEX, SKIPPED)):
            raise ValueError(f'{output} holds other data: choose another folder')
        clips.write_json(file, wanted)
    there = read_object(file)
    differing = [
        f'{name}={there.get(name)} instead of {value}' for name, value in wanted.items() if there.get(name) != value
    ]
    if differing:
        raise ValueError(f'{output} was begun with {", ".join(differing)}: choose another folder, or delete this one')


def _is_finished(report, file):
    return report.is_file() and (file.is_file() or not read_object(report)['samples'])


def _digest(entries):
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]


def _write(path, entries, outcomes, first, encoder, done):
    """Writes a shard and returns its report."""
    from array_record.python.array_record_module import ArrayRecordWriter

    part = path.with_suffix('.part')
    report = {'samples': 0, 'still': 0, 'skipped': []}
    with _errors_of_the_disk(part):
        writer = ArrayRecordWriter(str(part), 'group_size:1')  # clips are read one by one, in any order
    try:
        for number, (entry, outcome) in enumerate(zip(entries, outcomes), first + 1):
            for record in outcome.records:
                encoded = encoder(record) if encoder else record
                with _errors_of_the_disk(part):
                    writer.write(encoded)
            report['samples'] += len(outcome.records)
            report['still'] += outcome.still
            if outcome.reason:
                report['skipped'].append({'file': entry.file, 'reason': outcome.reason})
            stopping.check()
            done(number)
        with _errors_of_the_disk(part):
            writer.close()
    except BaseException:
        with contextlib.suppress(Exception):
            writer.close()
        part.unlink(missing_ok=True)
        raise
    if report['samples']:
        part.replace(path)
    else:
        part.unlink()
    return report


@contextlib.contextmanager
def _errors_of_the_disk(file):
    """The library of shards reports a full disk as a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error).split(';')[0], str(file)) from error


def clips_of(entry: Entry, folder: str | Path, settings: Settings) -> Outcome:
    """The clips of a video. If the file cannot be used, the reason is part of the result."""
    records, still = [], 0
    try:
        for start, frames in samples(Path(folder, entry.file), settings):
            if mean_flow(frames) < settings.min_motion:
                still += 1
                continue
            records.append(clips.record(frames, entry.caption, entry.file, start))
    except Exception as error:  # decoders fail in many ways, and one bad file must not end a run of days
        return Outcome([], 0, str(error) if isinstance(error, InputError) else f'{type(error).__name__}: {error}')
    reason = None
    if not records:
        scene = f'no scene lasts {settings.frames} frames at {settings.fps:g} per second'
        reason = f'all {still} clips stand still' if still else scene
    return Outcome(records, still, reason)


def samples(path: str | Path, settings: Settings) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the clips of a video, each of consecutive frames of one scene: (start in seconds, uint8 [n, h, w, 3]).

    The clips do not overlap and come in order. Their frames are those nearest to 0, 1/fps, 2/fps, ... seconds by their
    own times, so the rate of the file may vary. Raises InputError at its end if it has fewer frames than are needed.
    """
    from scenedetect import AdaptiveDetector, FrameTimecode

    detector = AdaptiveDetector(min_scene_len=1)
    waiting = []  # [(number, time, frame)] of the current scene that are not yet in a clip
    number, end = -1, 0.0
    for number, (shot, uses) in enumerate(nearest(timed_frames(path), settings.fps)):
        frame, end = resize_and_crop(shot.frame, settings.size), shot.time + shot.lasts
        # the detector counts frames; their rate does not matter to it
        for cut in detector.process_frame(FrameTimecode(number, float(settings.fps)), frame[..., ::-1]):
            waiting = [taken for taken in waiting if taken[0] >= cut.frame_num]
        waiting += [(number, shot.time, frame)] * uses
        # A cut is found some frames later; until then a frame may belong to the next scene.
        known = number - detector.event_buffer_length
        while len(waiting) >= settings.frames and waiting[settings.frames - 1][0] <= known:
            sample, waiting = waiting[: settings.frames], waiting[settings.frames :]
            yield sample[0][1], np.stack([frame for _, _, frame in sample])
    rate = (number + 1) / end if end else 0.0
    if rate < 0.99 * settings.fps:
        raise InputError(f'the file has {rate:.3g} frames per second, but clips need {settings.fps:g}')


def resize_and_crop(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a frame uint8 [h, w, 3] until it covers `size` (height, width), and cuts out the middle."""
    import cv2

    h, w = frame.shape[:2]
    scale = max(size[0] / h, size[1] / w)
    h, w = max(size[0], round(h * scale)), max(size[1], round(w * scale))
    frame = cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (h - size[0]) // 2, (w - size[1]) // 2
    return np.ascontiguousarray(frame[top : top + size[0], left : left + size[1]])


def mean_flow(frames: np.ndarray) -> float:
    """Mean length in pixels of the optical flow between consecutive frames, uint8 [n, h, w, 3]."""
    return float(flow_length([flow(a, b) for a, b in zip(frames, frames[1:])]).mean())
