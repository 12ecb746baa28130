"""Whether chunks come out again as they are stored: equal, equal up to rounding, or different."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from st2v_jax import video_io
from st2v_jax.errors import SessionError
from st2v_jax.sessions.branches import Recipe
from st2v_jax.sessions.chunks import Damaged
from st2v_jax.sessions.session import Session
from st2v_jax.streaming.generate import Model

EQUAL, ROUNDING, DIFFERENT, DAMAGED = 'equal', 'equal up to rounding', 'different', 'damaged'
SHARE = 0.05  # of the spread of latents: differences up to it, as root mean square, are called rounding
LEVELS = 4  # of 255, the same for frames of a file


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


def of_file(
    path: str | Path, about: Mapping[str, Any], model: Model, numbers: Iterable[int] | None = None
) -> Iterator[Verdict]:
    """Makes the video of an exported file again, up to the last chosen chunk, and compares what is written.

    What is made again goes through the same encoder before it is compared, so equal means that each pixel is.

    Args:
      path: of the file, or a folder of frames.
      about: its metadata.
      model: the weights that it was made with.
      numbers: of the chunks; None is all.

    Raises:
      SessionError: for a file without a manifest, other weights, or a number that the video does not have.
    """
    manifest, decode_frames = _manifest(path, about)
    recipes = tuple(Recipe.from_dict(recipe) for recipe in manifest['recipes'])
    contract = model.config.contract
    count = contract.chunks(about['num_frames'])
    chosen = sorted({*_checked(range(count) if numbers is None else numbers, count, str(path))})
    frames = min(about['num_frames'], contract.frames_after(chosen[-1] + 1))
    with tempfile.TemporaryDirectory(prefix='st2v-') as folder:
        session = Session.create(Path(folder, 'session'), model, decode_frames=decode_frames)
        if session.about['weights'] != manifest['weights']:
            raise SessionError(f'{path} was made with other weights: --weights names them')
        branch = session.start(*recipes, num_frames=frames)
        if session.planned(branch) != manifest['chunks'][: chosen[-1] + 1]:
            raise SessionError(f'{path} was made by another version of st2v_jax, or with another --dtype')
        reader = video_io.VideoReader(path)
        made = Path(folder, 'made' if video_io.is_folder(path) else f'made{Path(path).suffix.lower()}')
        if video_io.is_folder(path):
            made.mkdir()
        size = contract.frame_size
        with video_io.VideoWriter(made, reader.fps, size) as video:
            for step in session.extend():
                if step.frames is not None:
                    video.write(step.frames[: frames - video.frames])
        there, others = (_pieces(video, contract, frames) for video in (reader, video_io.VideoReader(made)))
        for number, (one, other) in enumerate(zip(there, others, strict=True)):
            if number in chosen:
                yield _of_pixels(number, one, other)


def _manifest(path, about):
    manifest = about.get('session')
    if not isinstance(manifest, dict):
        raise SessionError(f'{path} has no manifest of a session: st2v session export writes one')
    try:
        programs = manifest['made_by'][0]['programs']
        return manifest, int(programs['decode_frames'])
    except (KeyError, TypeError, IndexError, ValueError):
        raise SessionError(f'the manifest in {path} is damaged') from None


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
