"""How sharp a video is, and how close it is to the ground truth."""

import numpy as np

from st2v_jax.metrics.motion import high_pass
from st2v_jax.video_io import to_uint8


def sharpness(video: np.ndarray) -> float:
    """Mean absolute high-frequency band of a video [f, h, w, 3], in grey values of 0..255 (see metrics/motion.py)."""
    return float(np.mean([np.abs(high_pass(frame[None])).mean() for frame in video]))


def psnr(video: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two videos [f, h, w, 3] in dB."""
    error = np.mean([np.square(a.astype(np.float32) - b).mean() for a, b in zip(to_uint8(video), to_uint8(truth))])
    return float(10 * np.log10(255**2 / max(error, 1e-10)))
