"""All metrics that need no trained network, for a video that comes piece by piece.

Each flow is computed once and used by everything that needs it. Only curves are kept, not the video: a number or a few
for each frame, or each pair of frames.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from st2v_jax.metrics import colour, drift, mawe, stagnation
from st2v_jax.metrics.cuts import Cuts
from st2v_jax.metrics.flow import Estimate, farneback, flow, flow_length
from st2v_jax.metrics.motion import high_frequency_change
from st2v_jax.metrics.sharpness import blur, sharpness
from st2v_jax.metrics.ssim import ssim
from st2v_jax.metrics.steadiness import border_ratio, frame_changes
from st2v_jax.video_io import to_uint8

DRIFTING = ('sharpness', 'blur', 'colourfulness', 'colour_distance', 'histogram_distance', 'ssim_to_first', 'motion')


class WeightFree:
    """Measures a video: `add` its frames in order, then ask for the `result`.

    Args:
      estimate: the flow for MAWE, the deviation of the flow and the high-frequency change.
      starts: frames with which chunks after the first begin, counted from 0.
    """

    def __init__(self, *, estimate: Estimate = flow, starts: Sequence[int] = ()):
        self._estimate, self._starts = estimate, list(starts)
        self._cuts, self._first, self._last = Cuts(), None, None
        self._frames, self._pairs = [], []  # a dict for each

    def add(self, frames: np.ndarray) -> None:
        """The next frames [f, h, w, 3], uint8 or in [-1, 1], of one size from 11x11 on."""
        frames = to_uint8(frames)
        if not len(frames):
            return
        self._first = frames[0].copy() if self._first is None else self._first
        before = frames[:0] if self._last is None else self._last[None]
        shown = np.concatenate([before, frames])
        self._last = frames[-1].copy()
        with ThreadPoolExecutor() as pool:  # OpenCV releases the interpreter lock while it works
            cutting = pool.submit(self._cuts.add, frames)
            singles, pairs = pool.map(self._frame, frames), pool.map(self._pair, shown[:-1], shown[1:])
            self._frames += list(singles)
            self._pairs += list(pairs)
            cutting.result()

    def _frame(self, frame):
        return {
            'sharpness': sharpness(frame[None]),
            'blur': blur(frame),
            'ssim_to_first': ssim(self._first, frame),
            'colourfulness': colour.colourfulness(frame[None])[0],
            'colour': colour.mean_colours(frame[None])[0],
            'histogram': colour.histograms(frame[None])[0],
        }

    def _pair(self, now, following):
        vectors, both = self._estimate(now, following), np.stack([now, following])
        error, length, square = mawe.parts(now, following, vectors)
        return {
            'warp_error': error,
            'flow': length,
            'squared_flow': square,
            'motion': float(flow_length(farneback(now, following))),
            'change': frame_changes(both)[0],
            'block_change': stagnation.block_changes(both)[0],
            'high_frequency_change': high_frequency_change(both, vectors[None])[0],
        }

    def result(self) -> dict[str, Any]:
        """What was measured; raises ValueError before two frames.

        Returns:
          'curves', {name: [f] or [f - 1]}, over frames or over pairs of frames; 'mawe', {profile: value}; 'cuts', as of
          `Cuts`; 'flow_deviation', the standard deviation over time of the mean length of the flow, in pixels;
          'border_ratio'; 'stagnation'; 'drift', {curve: as of `drift`}; and 'chunks', {curve: [k]}, means over chunks.
        """
        if len(self._frames) < 2:
            raise ValueError(f'a video has at least two frames, got {len(self._frames)}')
        column = lambda rows, name: np.array([row[name] for row in rows])
        curves = {name: column(self._frames, name) for name in self._frames[0] if name not in ('colour', 'histogram')}
        curves |= {name: column(self._pairs, name) for name in self._pairs[0]}
        colours, shares = column(self._frames, 'colour'), column(self._frames, 'histogram')
        curves['colour_distance'] = colour.colour_distances(colours, colours[0])
        curves['histogram_distance'] = colour.histogram_distances(shares, shares[0])
        pairs = np.stack([curves[name] for name in ('warp_error', 'flow', 'squared_flow')], -1)
        starts = np.array([0, *self._starts])
        return {
            'frames': len(self._frames),
            'curves': curves,
            'mawe': {profile: mawe.ratio(pairs, profile=profile) for profile in ('release', 'paper')},
            'cuts': self._cuts.result(),
            'flow_deviation': float(curves['flow'].std()),
            'border_ratio': border_ratio(curves['change'], starts[1:] - 1),
            'stagnation': stagnation.stagnation(curves['block_change']),
            'drift': {name: drift.drift(curves[name]) for name in DRIFTING},
            'chunks': {name: drift.over_chunks(curves[name], starts) for name in DRIFTING},
        }
