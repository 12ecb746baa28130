"""A study of long videos: makes them from unseen captions, measures them and draws sheets."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from st2v_jax import sharding
from st2v_jax.evaluation import checker, pictures, record, survey
from st2v_jax.evaluation.baselines import METHODS
from st2v_jax.evaluation.batches import Batches
from st2v_jax.models.system import encode_prompt
from st2v_jax.sessions import fingerprint
from st2v_jax.storage.text import read_object
from st2v_jax.storage.untrusted import UnsafeCheckpointError
from st2v_jax.streaming.generate import Model, first_frames, load
from st2v_jax.streaming.settings import SampleSettings
from st2v_jax.video_io import VideoWriter, to_uint8

FPS = 8  # of the files of the videos
SHEET_FRAMES = (1, 8, 16, 32, 64, 120, 180, 240)


def study(
    out: str | Path,
    checker_file: str | Path,
    *,
    folder: str | Path | None = None,
    captions: int,
    frames: int,
    seed: int,
    batch: int,
    dtype: str | None = None,
    method: str = 'streaming',
    sheet: int,
    keep: int,
    nearest: int,
    train_seed: int,
    command: str = '',
    **chosen: Any,
) -> None:
    """Makes videos, measures and draws them.

    Finished batches are kept until all is measured, so that the same call goes on after a kill; a complete study is not
    made again.

    Args:
      out: folder for results.json, sheets and videos: all as mp4, and some as JPEG frames, which `measure` reads.
      checker_file: npz file of a checker.
      folder: weights; None takes the small model.
      captions: number of videos.
      frames: of each video.
      seed: of the world and of the noise.
      batch: videos made at once.
      dtype: that networks compute in; None takes that of the device.
      method: one of `baselines.METHODS`.
      sheet: number of videos that are drawn.
      keep: number of videos that are kept as JPEG frames.
      nearest: number of training scenes to compare with; 0 for none.
      train_seed: of the world in the training.
      command: stored with the results.
      chosen: fields of `SampleSettings`.
    """
    loaded = checker.load(checker_file)
    dtype, out = record.network_dtype(dtype), Path(out)
    model = load(folder, dtype)
    size, (height, width) = loaded[1]['size'], model.config.frame_size
    if (size, size) != (height, width):
        raise ValueError(f'{checker_file} works on {size}x{size} pixels, but the model makes {height}x{width}')
    survey.check(loaded, size)
    settings = model.settings(**chosen)
    survey.windows_of(frames)  # raises ValueError if there are too few
    out.mkdir(parents=True, exist_ok=True)
    indices, scenes = survey.unseen_scenes(seed, captions)
    prompts = survey.captions(scenes)
    began = time.monotonic()
    (out / 'videos').mkdir(exist_ok=True)
    stored = {'seed': seed, 'num_frames': frames, 'settings': vars(settings), 'command': command}

    def write(first, some):
        for number, video in enumerate(some, first):
            with VideoWriter(
                out / 'videos' / f'{number:03d}.mp4', FPS, (height, width), stored | {'prompt': prompts[number]}
            ) as file:
                file.write(video)

    asked = {
        'method': method,
        'prompts': prompts,
        'frames': frames,
        'seed': seed,
        'batch': batch,
        'settings': vars(settings),
    }
    asked |= {'weights': fingerprint.of_weights(model.source)[0], 'dtype': np.dtype(dtype).name}
    looked = {'checker': hashlib.sha256(Path(checker_file).read_bytes()).hexdigest(), 'nearest': nearest}
    looked |= {'places': [*survey.windows_of(frames)]}
    about = fingerprint.digest(asked | looked | {'sheet': sheet, 'keep': keep, 'train_seed': train_seed})
    if _complete(out / 'results.json', about):
        print(f'{out / "results.json"} is complete', flush=True)
        return
    batches = Batches(out, asked)
    videos = make_videos(
        model, settings, prompts, frames, seed=seed, batch=batch, method=method, on_batch=write, batches=batches
    )
    results = {
        'made': record.made(command)
        | {
            'asked': about,
            'method': method,
            'dtype': np.dtype(dtype).name,
            'captions': len(prompts),
            'frames': frames,
            'size': size,
            'seed': seed,
            'settings': vars(settings),
            'seconds': time.monotonic() - began,
        }
    }
    print(f'{len(prompts)} videos of {frames} frames in {results["made"]["seconds"]:.0f} s', flush=True)
    if keep:
        pictures.keep(out / 'videos.npz', videos[:keep], indices[:keep], seed)
    results |= _measured(videos, scenes, loaded)
    if nearest:
        results['nearest'] = pictures.nearest_to(videos, scenes, train_seed, nearest)
    results['pictures'] = pictures.draw(out, videos, scenes, prompts, shown(frames), results, count=sheet)
    record.write(out / 'results.json', results)
    batches.remove()
    _say(results)
    print(f'results: {out / "results.json"}')


def _complete(results, asked):
    """Whether the results of a study are those of what is asked for."""
    try:
        return read_object(results)['made'].get('asked') == asked
    except (FileNotFoundError, KeyError, AttributeError, UnsafeCheckpointError):
        return False


def measure(videos_file: str | Path, checker_file: str | Path, output: str | Path) -> None:
    """Measures kept videos again, with the same or another checker, and writes the numbers as JSON."""
    videos, indices, seed = pictures.kept(videos_file)
    results = _measured(videos, survey.many_scenes(seed, indices), checker.load(checker_file))
    record.write(output, results)
    _say(results)


def shown(frames: int) -> list[int]:
    """Numbers of the frames that a sheet shows of a video with `frames` frames: SHEET_FRAMES and the last one."""
    return [number for number in SHEET_FRAMES if number < frames] + [frames]


def make_videos(
    model: Model,
    settings: SampleSettings,
    prompts: Sequence[str],
    num_frames: int,
    *,
    seed: int,
    batch: int,
    method: str = 'streaming',
    on_batch: Callable[[int, np.ndarray], None] = lambda first, videos: None,
    batches: Batches | None = None,
) -> np.ndarray:
    """Makes uint8 videos [n, num_frames, h, w, 3] of n prompts, `batch` at once over all devices.

    A video depends on its prompt, its index and the seed, but not on its batch (except for rounding). on_batch is
    called with each finished batch, and the index of its first video. What `batches` has is not made again.
    """
    mesh = sharding.make_mesh({sharding.DATA: -1})
    devices = mesh.shape[sharding.DATA]
    batch = -(-min(batch, len(prompts)) // devices) * devices
    params = jax.device_put(model.params, sharding.replicated(mesh))
    place = lambda tree: jax.device_put(tree, sharding.split_rows(mesh))
    videos = []
    for first in range(0, len(prompts), batch):
        count = min(batch, len(prompts) - first)
        made = None if batches is None else batches.read(first)
        if made is None:
            numbers = np.minimum(np.arange(first, first + batch), len(prompts) - 1)  # the last batch is padded
            ids, null_ids = (model.tokenizer.ids(texts) for texts in ([prompts[i] for i in numbers], [''] * batch))
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
            encoded = encode_prompt(model.system, params, *place((ids, null_ids)))
            pieces = METHODS[method](model, settings, params, encoded, place(keys), num_frames)
            frames = [to_uint8(some) for some in first_frames(pieces, num_frames)]
            made = np.concatenate(frames, 1)[:count]
            on_batch(first, made)
            if batches is not None:
                batches.write(first, made)
        videos.append(made)
        print(f'{first + count} of {len(prompts)} videos', flush=True)
    return np.concatenate(videos)


def _measured(videos, scenes, loaded):
    """The survey, and how its checker was trained."""
    about = {name: value for name, value in loaded[1].items() if name not in ('history', 'classes')}
    return survey.survey(videos, scenes, loaded) | {'checker': about}


def _say(results):
    for place, found in results['places'].items():
        for kind, shares in found['right'].items():
            listed = ', '.join(f'{name} {100 * share:.0f} %' for name, share in shares.items() if share is not None)
            print(f'around {place}, {kind}: {listed}')
        grown = found['size']
        print(
            f'around {place}: size {grown["to_truth"]:.2f} of the truth, '
            f'{grown["generated"]["ratio"]:.2f} of the beginning (truth {grown["truth"]["ratio"]:.2f})'
        )
        moved = found['motion']
        print(
            f'around {place}: '
            + ', '.join(
                f'{name} {moved["generated"][name]:.2f} (truth {moved["truth"][name]:.2f})' for name in moved['truth']
            )
        )
    kinds = ('generated', 'truth', 'others')
    print('identity: ' + ', '.join(f'{kind} {results["identity"][kind]:.3f}' for kind in kinds))
