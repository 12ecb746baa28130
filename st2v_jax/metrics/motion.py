"""Does a video move, and does it flicker? Two numbers per pair of consecutive frames, without a trained network.

Both are read beside the same numbers of ground-truth videos: a flow far below means that the picture froze, a
high-frequency change far above means that fine detail flickers instead of moving with the things it belongs to.
"""

import numpy as np

from st2v_jax.metrics.flow import flow, flow_length
from st2v_jax.video_io import to_uint8

HIGH_PASS_SIGMA = 1.5  # pixels; what a Gaussian of this width removes is the high-frequency band


def high_pass(frames):
    """frames [f, h, w, 3] -> the same in 0..255 minus their Gaussian blur: what only fine detail has."""
    import cv2

    frames = to_uint8(frames).astype(np.float32)
    return np.stack([frame - cv2.GaussianBlur(frame, (0, 0), HIGH_PASS_SIGMA) for frame in frames])


def pull_back(image, flow):
    """image [h, w, c] seen along flow [h, w, 2]: result(x) = image(x + flow(x)), bilinear, and the mask inside it."""
    import cv2

    h, w = flow.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    x, y = x + flow[..., 0], y + flow[..., 1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR), inside


def high_frequency_change(frames, flows):
    """frames [f, h, w, 3], flows [f - 1, h, w, 2] -> [f - 1], grey values of 0..255.

    Mean absolute difference between a frame's high-frequency band and that of its successor pulled back along the
    flow, so that detail which merely moves costs little and detail which appears and vanishes costs its contrast.
    """
    bands = high_pass(frames)
    changes = []
    for now, following, vectors in zip(bands[:-1], bands[1:], flows, strict=True):
        pulled, inside = pull_back(following, vectors)
        changes.append(np.abs(pulled - now)[inside].mean() if inside.any() else 0.0)
    return np.array(changes)


def motion(frames):
    """frames [f, h, w, 3] in [-1, 1] or uint8, f >= 2 -> means over the frame pairs of one clip.

    flow: pixels a frame; change: high-frequency change; detail: mean absolute high-frequency band, in grey values
    (a change is to be read against the detail there is).
    """
    if len(frames) < 2:
        raise ValueError(f'motion needs two frames or more, got {len(frames)}')
    flows = np.stack([flow(a, b) for a, b in zip(frames[:-1], frames[1:])])
    return {
        'flow': float(flow_length(flows).mean()),
        'change': float(high_frequency_change(frames, flows).mean()),
        'detail': float(np.abs(high_pass(frames)).mean()),
    }
