"""The instruments of `st2v evaluate --videos`: what each needs, how it looks at frames, and the numbers that it gives.

An instrument sees a video of any length piece by piece, at its own size. It keeps curves, a value for each frame or
each pair of frames, and its numbers are computed from them.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from st2v_jax.metrics import colour, mawe, stagnation
from st2v_jax.metrics.cuts import Cuts
from st2v_jax.metrics.drift import drift
from st2v_jax.metrics.flow import flow_length, flows
from st2v_jax.metrics.motion import high_frequency_change
from st2v_jax.metrics.sharpness import blur, sharpness
from st2v_jax.metrics.ssim import WINDOW, ssim
from st2v_jax.metrics.steadiness import border_ratio, frame_changes

FLOW = 'DIS, medium preset (OpenCV)'  # the estimate that all instruments share
PAPER_SIZE = (720, 720)  # of the paper's table

Curves = dict[str, np.ndarray]


class View:
    """A piece of a video at one size; what several instruments want of it is computed once.

    Attributes:
      frames: uint8 [n, h, w, 3].
      shown: the same after the last frame of the piece before, if there is one; their pairs are those of the piece.
    """

    def __init__(self, frames: np.ndarray, before: np.ndarray | None):
        self.frames = frames
        self.shown = frames if before is None else np.concatenate([before[None], frames])

    @functools.cached_property
    def flows(self) -> np.ndarray:
        """Flows [m, h, w, 2] between the m + 1 frames of `shown`, in pixels."""
        return flows(self.shown) if len(self.shown) > 1 else np.zeros((0, *self.shown.shape[1:3], 2), np.float32)

    def over_frames(self, function: Callable[[np.ndarray], Any]) -> np.ndarray:
        """function(frame) of each of the frames."""
        return self._over(function, self.frames)

    def over_pairs(self, function: Callable[..., Any], *more: np.ndarray) -> np.ndarray:
        """function(frame, next frame, *more of the pair) of each pair of `shown`."""
        return self._over(function, self.shown[:-1], self.shown[1:], *more)

    def _over(self, function, *items):
        with ThreadPoolExecutor() as pool:  # OpenCV and numpy release the interpreter lock while they work
            return np.array(list(pool.map(function, *items)))


@dataclass(frozen=True)
class Instrument:
    """One instrument.

    Attributes:
      name: as `--metrics` knows it.
      begin: called with the prompt of a video, or None; returns the function that looks at its views, one after the
        other, and gives the curves of each.
      numbers: the numbers, from the curves of the whole video.
      size: (height, width) that frames are resized to; None leaves them as they are.
      smallest: pixels of the shorter side that it needs.
      fewest: frames that it needs.
      modules: what must be installed, from the extra `evaluate`.
      needs_prompt: whether it needs the prompt of each video.
      about: what else decides its numbers, such as the weights; JSON values.
    """

    name: str
    begin: Callable[[str | None], Callable[[View], Curves]]
    numbers: Callable[[Curves], dict[str, float]]
    size: tuple[int, int] | None = None
    smallest: int = 1
    fewest: int = 2
    modules: tuple[str, ...] = ('cv2',)
    needs_prompt: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    def settings(self, prompt: str | None) -> dict[str, Any]:
        """Everything that decides its numbers for a video: equal settings, equal numbers."""
        size = self.size and list(self.size)
        return {'size': size, **self.about} | ({'prompt': prompt} if self.needs_prompt else {})


def resized(frames: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Frames uint8 [n, h, w, 3] at (height, width): averaged where they shrink, bilinear where they grow."""
    if size is None or frames.shape[1:3] == size:
        return frames
    import cv2

    how = cv2.INTER_AREA if frames.shape[1] * frames.shape[2] > size[0] * size[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, size[::-1], interpolation=how) for frame in frames])


def _mawe(view):
    found = view.over_pairs(mawe.parts, view.flows).reshape(-1, 3)
    return dict(zip(('warp_error', 'flow', 'squared_flow'), found.T))


def _mawe_numbers(curves):
    pairs = np.stack([curves[name] for name in ('warp_error', 'flow', 'squared_flow')], -1)
    return {'mawe': mawe.ratio(pairs), 'mawe_paper': mawe.ratio(pairs, profile='paper')}


def _cuts(_):
    finder, count = Cuts(), 0

    def look(view):
        nonlocal count
        finder.add(view.frames)
        found = finder.result()
        count, new = len(found), found[count:]
        return {'cuts': np.array(new, int)}

    return look


def _motion(view):
    changes = high_frequency_change(view.shown, view.flows) if len(view.flows) else np.zeros(0)
    return {'flow': flow_length(view.flows), 'flicker': changes}


def _colour(_):
    first = {}

    def look(view):
        colours, shares = colour.mean_colours(view.frames), colour.histograms(view.frames)
        first.setdefault('colour', colours[0])
        first.setdefault('shares', shares[0])
        return {
            'colourfulness': colour.colourfulness(view.frames),
            'colour_distance': colour.colour_distances(colours, first['colour']),
            'histogram_distance': colour.histogram_distances(shares, first['shares']),
        }

    return look


def _ssim(_):
    first = None

    def look(view):
        nonlocal first
        first = view.frames[0].copy() if first is None else first
        anchor = first
        return {
            'ssim_next': view.over_pairs(ssim),
            'ssim_first': view.over_frames(lambda frame: ssim(anchor, frame)),
        }

    return look


def means(curves: Curves) -> dict[str, float]:
    """The mean of each curve."""
    return {name: float(np.mean(curve)) for name, curve in curves.items()}


def _same(look):
    """For instruments that look at every video and every piece in the same way."""
    return lambda prompt: look


def steadiness(chunks: tuple[int, int] | None = None) -> Instrument:
    """The instrument of changes between frames; `chunks`, frames of the first and of each later one, adds their seams.

    'border_ratio' has no value for a video of one chunk.
    """

    def numbers(curves):
        if chunks is None:
            return means(curves)
        starts = np.arange(chunks[0], len(curves['change']) + 1, chunks[1])
        return means(curves) | {'border_ratio': border_ratio(curves['change'], starts - 1)}

    about = {} if chunks is None else {'chunks': list(chunks)}
    return Instrument('steadiness', _same(lambda view: {'change': frame_changes(view.shown)}), numbers, about=about)


WEIGHT_FREE = (
    Instrument('mawe', _same(_mawe), _mawe_numbers, size=PAPER_SIZE, about={'flow': FLOW}),
    Instrument('scuts', _cuts, lambda curves: {'scuts': len(curves['cuts'])}, modules=('cv2', 'scenedetect')),
    Instrument(
        'motion',
        _same(_motion),
        lambda curves: means(curves) | {'flow_deviation': float(curves['flow'].std())},
        about={'flow': FLOW},
    ),
    steadiness(),
    Instrument(
        'sharpness',
        _same(
            lambda view: {
                'sharpness': view.over_frames(lambda frame: sharpness(frame[None])),
                'blur': view.over_frames(blur),
            }
        ),
        lambda curves: means(curves) | {'sharpness_drift': drift(curves['sharpness'])['drift']},
    ),
    Instrument('ssim', _ssim, means, smallest=WINDOW),
    Instrument(
        'colour',
        _colour,
        lambda curves: means(curves) | {'colourfulness_drift': drift(curves['colourfulness'])['drift']},
    ),
    Instrument(
        'stagnation',
        _same(lambda view: {'block_change': stagnation.block_changes(view.shown)}),
        lambda curves: {
            f'still_{name}': stagnation.stagnation(curves['block_change'])[name] for name in ('share', 'longest')
        },
        modules=(),
    ),
)
