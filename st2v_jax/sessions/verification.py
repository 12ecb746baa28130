"""Whether chunks come out again as they are stored: equal, equal up to rounding, or different."""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from st2v_jax import video_io
from st2v_jax.errors import SessionError
from st2v_jax.sessions.branches import Recipe
from st2v_jax.sessions.chunks import Damaged
from st2v_jax.sessions.session import Session
from st2v_jax.streaming.gate import OFF
from st2v_jax.streaming.generate import Model

EQUAL, ROUNDING, DIFFERENT, DAMAGED = 'equal', 'equal up to rounding', 'different', 'damaged'
SHARE = 0.05  # of the spread of latents: differences up to it, as root mean square, are called rounding
LEVELS = 4  # of 255, the same for frames of a file
DTYPES = ('bfloat16', 'float16', 'float32')


class Verdict(NamedTuple):
    """What became of a chunk that was made again.

    Attributes:
      chunk: its number.
      verdict: EQUAL, ROUNDING, DIFFERENT or DAMAGED.
      apart: root mean square of the differences, in shares of the spread of latents or in levels of 255.
    """

    chunk: int
    verdict: str
    apart: float = 0.0


def of_session(session: Session, name: str, numbers: Iterable[int] | None = None) -> Iterator[Verdict]:
    """Makes chunks of a branch again, each from the stored chunks before it, and yields a Verdict for each.

    numbers: of the chunks; None is the first, the middle and the last. Files of other chunks are read, and those that
    are damaged are reported too. Raises SessionError for a number that the branch does not have.
    """
    branch = session.branch(name)
    session.planned(branch)
    count = len(branch.chunks)
    chosen = {*_checked(numbers, count, name)} if numbers is not None else {0, count // 2, count - 1} & {*range(count)}
    for number, id in enumerate(branch.chunks):
        try:
            stored = session.chunk(id)
            made = session.again(branch, number) if number in chosen else None
        except Damaged:
            yield Verdict(number, DAMAGED)
            continue
        if made is not None:
            pairs = [(stored.latents, made.latents), (stored.anchor, made.state.anchor)]
            pairs = [(np.asarray(one), np.asarray(other)) for one, other in pairs if one is not None]
            equal = all(np.array_equal(one, other) for one, other in pairs)
            apart = max(_rms(one, other) / max(float(np.std(one.astype(np.float32))), 1e-12) for one, other in pairs)
            yield Verdict(number, EQUAL if equal else ROUNDING if apart <= SHARE else DIFFERENT, apart)


class Manifest(NamedTuple):
    """What an exported file says of itself, see `manifest.metadata`."""

    num_frames: int
    frame_size: tuple[int, int]
    dtype: str
    weights: dict[str, Any]
    recipes: tuple[Recipe, ...]
    chunks: list[str]
    decode_frames: int
    draws: tuple[int, ...]


def manifest_of(path: str | Path) -> Manifest:
    """The Manifest of a video file or a folder of frames; raises SessionError if there is none, or a damaged one."""
    file = next(iter(sorted(Path(path).glob('frame-*.png'))), None) if Path(path).is_dir() else path
    about = {} if file is None else video_io.read_metadata(file)
    if 'session' not in about:
        raise SessionError(f'{path} has no manifest of a session: st2v session export writes one')
    try:
        told = about['session']
        recipes = tuple(Recipe.from_dict(recipe) for recipe in told['recipes'])
        decode_frames = int(told['made_by'][0]['programs']['decode_frames'])
        height, width = map(int, told['frame_size'])
        found = Manifest(
            int(about['num_frames']),
            (height, width),
            told['dtype'],
            told['weights'],
            recipes,
            told['chunks'],
            decode_frames,
            tuple(map(int, told.get('draws', ()))),
        )
        if found.dtype not in DTYPES or not recipes or recipes[0].start or min(found.draws, default=0) < 0:
            raise ValueError(f'{found.dtype}, {len(recipes)} recipes, draws {found.draws}')
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SessionError(f'the manifest in {path} is damaged: {error!r}') from error
    if 'given' in told:
        raise SessionError(f'{path} starts from pixels that only its session has: verify that one')
    return found


def of_file(
    path: str | Path, manifest: Manifest, model: Model, numbers: Iterable[int] | None = None
) -> Iterator[Verdict]:
    """Makes the video of an exported file again, up to the last chosen chunk, and compares what is written.

    What is made again goes through the same encoder before it is compared, so equal means that each pixel is.

    Args:
      path: of the file, or a folder of frames.
      manifest: of the file.
      model: that it was made with, in the size and the dtype of the manifest.
      numbers: of the chunks; None is all.

    Raises:
      SessionError: for other weights, or a number that the video does not have.
    """
    contract, count = model.config.contract, len(manifest.chunks)
    if count != contract.chunks(manifest.num_frames):
        raise SessionError(f'the manifest in {path} is damaged: {count} chunks for {manifest.num_frames} frames')
    chosen = sorted({*_checked(range(count) if numbers is None else numbers, count, str(path))})
    frames = min(manifest.num_frames, contract.frames_after(chosen[-1] + 1))
    with tempfile.TemporaryDirectory(prefix='st2v-') as folder:
        session = Session.create(Path(folder, 'session'), model, decode_frames=manifest.decode_frames)
        if session.about['weights'] != manifest.weights:
            raise SessionError(f'{path} was made with other weights: --weights names them')
        recipes = [dataclasses.replace(recipe, gate=OFF) for recipe in manifest.recipes]  # it is known what was kept
        branch = session.start(*recipes, num_frames=frames, draws=manifest.draws)
        if session.planned(branch) != manifest.chunks[: chosen[-1] + 1]:
            raise SessionError(f'{path} was made by another version of st2v_jax, whose chunks have other ids')
        reader = video_io.VideoReader(path)
        made = Path(folder, 'made' if video_io.is_folder(path) else f'made{Path(path).suffix.lower()}')
        if video_io.is_folder(path):
            made.mkdir()
        with video_io.VideoWriter(made, reader.fps, contract.frame_size) as video:
            for step in session.extend():
                if step.frames is not None:
                    video.write(step.frames[: frames - video.frames])
        there, others = (_pieces(video, contract, frames) for video in (reader, video_io.VideoReader(made)))
        for number, (one, other) in enumerate(zip(there, others, strict=True)):
            if number in chosen:
                yield _of_pixels(number, one, other)


def _pieces(reader, contract, frames):
    """The frames of a video chunk by chunk, uint8; those that the file lacks are missing from a piece."""
    rest = (frame for pieces in reader for frame in pieces)
    for number in range(contract.chunks(frames)):
        first = contract.frames_after(number) if number else 0
        wanted = min(contract.frames_after(number + 1), frames) - first
        yield list(itertools.islice(rest, wanted))


def _of_pixels(number, one, other):
    if len(one) != len(other) or not one or one[0].shape != other[0].shape:
        return Verdict(number, DIFFERENT, float('inf'))
    one, other = np.stack(one), np.stack(other)
    apart = _rms(one, other)
    return Verdict(number, EQUAL if np.array_equal(one, other) else ROUNDING if apart <= LEVELS else DIFFERENT, apart)


def _rms(one, other):
    return float(np.sqrt(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2)))


def _checked(numbers, count, name):
    numbers = list(numbers)
    if wrong := [number for number in numbers if not 0 <= number < count]:
        raise SessionError(f'{name} has {count} chunks, which are numbered from 0: there is no {wrong[0]}')
    return numbers
