"""Videos with captions become clips to train on: cut at scene changes, 3 frames a second, cropped, none that is still.

Videos are worked on in the order of the captions file, a fixed number for each shard. A shard is written under a
temporary name; its report, `00000.json`, is renamed into place last and says that it is finished. So a run that was
killed loses the shard in hand and nothing else.
"""

import dataclasses
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from st2v_jax.data import clips
from st2v_jax.errors import InputError
from st2v_jax.metrics.flow import flow, flow_length
from st2v_jax.video_io import VideoReader

SETTINGS = 'settings.json'


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides which samples come out; stored beside them.

    Attributes:
      frames: of a sample. The stage cam takes 16, apm 32.
      fps: frames per second of a sample.
      size: (height, width) of its frames.
      min_motion: mean length of the optical flow between its frames, in pixels, below which a sample is still.
      videos_per_shard: how many videos share a file.
    """

    frames: int = 16
    fps: float = 3.0
    size: tuple[int, int] = (256, 256)
    min_motion: float = 0.3
    videos_per_shard: int = 100


class Entry(NamedTuple):
    """A line of the captions file."""

    file: str
    caption: str


class Outcome(NamedTuple):
    """What became of a video: its records, how many samples were dropped for standing still, and what went wrong."""

    records: list
    still: int
    reason: str | None


def read_captions(path) -> list[Entry]:
    """The lines {"file": "boat.mp4", "caption": "a boat on a lake"} of a file; ValueError names a line that is none."""
    entries = []
    for number, line in enumerate(Path(path).read_text('utf-8').splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            entry = Entry(values['file'], values['caption'])
        except (ValueError, KeyError, TypeError):
            entry = Entry(None, None)
        if not all(isinstance(value, str) and value.strip() for value in entry):
            raise ValueError(f'{path}, line {number}: a line is {{"file": "...", "caption": "..."}}, not {line[:60]!r}')
        entries.append(entry)
    if not entries:
        raise ValueError(f'{path} names no videos')
    return entries


def prepare(folder, entries, output, settings: Settings, *, encoder=None, apply=map, done=lambda count: None):
    """Writes the samples of the videos in `folder` to `output`; returns {'videos', 'samples', 'still', 'skipped'}.

    encoder: an `encoding.Encoder`, which works in this process while others decode; None stores frames alone.
    apply: map, or one that works in several processes; results come in the order of the videos.
    done: called with the number of videos that are finished.

    Raises ValueError where `output` was begun with other settings or captions.
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
        reports[file.name] = json.loads(report.read_text('utf-8'))
        done(first + len(shard))
    skipped = [line for report in reports.values() for line in report['skipped']]
    total = {name: sum(report[name] for report in reports.values()) for name in ('samples', 'still')}
    with open(output / 'skipped.jsonl', 'w', encoding='utf-8') as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + '\n' for line in skipped)
    shards = {name: report['samples'] for name, report in reports.items() if report['samples']}
    if shards:
        about = {'settings': _listed(settings), 'samples': total['samples'], 'shards': shards}
        clips.write_json(output / clips.INDEX, about | ({'encoded': encoded} if encoded else {}))
    return {'videos': len(entries), **total, 'skipped': len(skipped)}


def _listed(settings):
    """The settings as JSON gives them back."""
    return dataclasses.asdict(settings) | {'size': list(settings.size)}


def _claim(output, wanted):
    """Notes what the folder is to hold; a folder that was begun with something else is left alone."""
    file = output / SETTINGS
    if not file.is_file():
        if any(output.glob('*.array_record')):
            raise ValueError(f'{output} holds other data: name another folder')
        clips.write_json(file, wanted)
    there = json.loads(file.read_text('utf-8'))
    differing = [
        f'{name}={there.get(name)} and not {value}' for name, value in wanted.items() if there.get(name) != value
    ]
    if differing:
        raise ValueError(f'{output} was begun with {", ".join(differing)}: name another folder, or delete it')


def _is_finished(report, file):
    return report.is_file() and (file.is_file() or not json.loads(report.read_text('utf-8'))['samples'])


def _digest(entries):
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]


def _write(path, entries, outcomes, first, encoder, done):
    """Writes a shard and returns its report."""
    from array_record.python.array_record_module import ArrayRecordWriter

    part = path.with_suffix('.part')
    report = {'samples': 0, 'still': 0, 'skipped': []}
    writer = ArrayRecordWriter(str(part), 'group_size:1')  # samples are read one by one, in any order
    try:
        for number, (entry, outcome) in enumerate(zip(entries, outcomes), first + 1):
            for record in outcome.records:
                writer.write(encoder(record) if encoder else record)
            report['samples'] += len(outcome.records)
            report['still'] += outcome.still
            if outcome.reason:
                report['skipped'].append({'file': entry.file, 'reason': outcome.reason})
            done(number)
    finally:
        writer.close()
    if report['samples']:
        part.replace(path)
    else:
        part.unlink()
    return report


def clips_of(entry: Entry, folder, settings: Settings) -> Outcome:
    """The samples of a video. Whatever is wrong with a file becomes the reason why there are none."""
    records, still = [], 0
    try:
        for start, frames in samples(Path(folder, entry.file), settings):
            if mean_flow(frames) < settings.min_motion:
                still += 1
                continue
            records.append(clips.record(frames, entry.caption, entry.file, start))
    except Exception as error:  # decoders fail in many ways, and one file must not end a run of days
        return Outcome([], 0, str(error) if isinstance(error, InputError) else f'{type(error).__name__}: {error}')
    reason = None
    if not records:
        scene = f'no scene lasts for {settings.frames} frames at {settings.fps:g} a second'
        reason = f'all {still} samples stand still' if still else scene
    return Outcome(records, still, reason)


def samples(path, settings: Settings):
    """Yields (start in seconds, frames uint8 [n,h,w,3]) of successive frames of one scene, disjoint, in order.

    Frames are those nearest to 0, 1/fps, 2/fps, ... seconds, the rate of the file taken as constant.
    """
    from scenedetect import AdaptiveDetector, FrameTimecode

    video = VideoReader(path)
    rate = video.fps
    if not rate or rate < 0.99 * settings.fps:
        has = f'{rate:.3g} frames a second' if rate else 'no frame rate'
        raise InputError(f'the file has {has}, too few for {settings.fps:g}')
    detector = AdaptiveDetector(min_scene_len=1)
    waiting, kept = [], 0  # [(number, frame)] of the scene at hand that are in no sample yet
    for number, frame in enumerate(frame for piece in video for frame in piece):
        frame = resize_and_crop(frame, settings.size)
        for cut in detector.process_frame(FrameTimecode(number, rate), frame[..., ::-1]):
            waiting = [pair for pair in waiting if pair[0] >= cut.frame_num]
        if number >= round(kept * rate / settings.fps):
            waiting.append((number, frame))
            kept += 1
        # A cut is known some frames later; until then a frame may belong to the next scene.
        known = number - detector.event_buffer_length
        if len(waiting) >= settings.frames and waiting[settings.frames - 1][0] <= known:
            sample, waiting = waiting[: settings.frames], waiting[settings.frames :]
            yield sample[0][0] / rate, np.stack([frame for _, frame in sample])


def resize_and_crop(frame, size):
    """A frame uint8 [h, w, 3] at `size` (height, width): resized until it covers that, of which the middle is cut."""
    import cv2

    h, w = frame.shape[:2]
    scale = max(size[0] / h, size[1] / w)
    h, w = max(size[0], round(h * scale)), max(size[1], round(w * scale))
    frame = cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (h - size[0]) // 2, (w - size[1]) // 2
    return np.ascontiguousarray(frame[top : top + size[0], left : left + size[1]])


def mean_flow(frames):
    """Mean length in pixels of the optical flow between successive frames uint8 [n,h,w,3]."""
    return float(flow_length([flow(a, b) for a, b in zip(frames, frames[1:])]).mean())
