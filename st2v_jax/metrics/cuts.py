"""SCuts: scene cuts in a video that should be one scene (Henschel et al. 2024, section 5.1).

They are what the AdaptiveDetector of PySceneDetect finds with its default parameters.
"""

import numpy as np

from st2v_jax.video_io import to_uint8


class Cuts:
    """Finds the cuts of a video that comes piece by piece; it keeps the scores of five frames and no picture but one.

    The detector sees a cut two frames late, so it finds none in the last two frames; nor one within 15 frames of the
    first frame or of the last cut.
    """

    def __init__(self):
        from scenedetect import AdaptiveDetector  # an extra that sampling does not need

        self._detector, self._count, self._found = AdaptiveDetector(), 0, []

    def add(self, frames: np.ndarray) -> None:
        """The next frames [f, h, w, 3] of the video."""
        from scenedetect import FrameTimecode

        for frame in to_uint8(frames):
            # the detector counts frames; their rate does not matter to it
            seen = self._detector.process_frame(
                FrameTimecode(self._count, 24.0), np.ascontiguousarray(frame[..., ::-1])
            )
            self._found += [cut.frame_num for cut in seen]
            self._count += 1

    def result(self) -> list[int]:
        """The first frame of each scene but the first, counted from 0; its length is SCuts."""
        return list(self._found)


def cuts(frames: np.ndarray) -> list[int]:
    """Where scenes begin in frames [f, h, w, 3], counted from 0 and without the first; its length is SCuts, >= 0."""
    finder = Cuts()
    finder.add(frames)
    return finder.result()
