"""Does a video move, and does it flicker? Two numbers for each pair of frames, without a trained network.

Compare both with those of ground-truth videos. A much smaller flow means that the picture froze. A much larger
high-frequency change means that fine detail flickers instead of moving with the objects it belongs to.
"""

import numpy as np

from st2v_jax.metrics.flow import flow, flow_length
from st2v_jax.video_io import to_uint8

HIGH_PASS_SIGMA = 1.5  # pixels; the high-frequency band is what a Gaussian of this width removes


def high_pass(frames: np.ndarray) -> np.ndarray:
    """The high-frequency band of frames [f, h, w, 3]: grey values in 0..255 minus their Gaussian blur."""
    import cv2

    frames = to_uint8(frames).astype(np.float32)
    return np.stack([frame - cv2.GaussianBlur(frame, (0, 0), HIGH_PASS_SIGMA) for frame in frames])


def pull_back(image: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples image [h, w, c] along flow [h, w, 2]: result(x) = image(x + flow(x)), bilinear.

    Returns:
      The result [h, w, c], and a mask [h, w] of the pixels whose source lies inside the image.
    """
    import cv2

    h, w = flow.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    x, y = x + flow[..., 0], y + flow[..., 1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR), inside


def high_frequency_change(frames: np.ndarray, flows: np.ndarray) -> np.ndarray:
    """Change [f - 1] of the fine detail of frames [f, h, w, 3] with flows [f - 1, h, w, 2], in grey values of 0..255.

    This is the mean absolute difference between the high-frequency band of a frame and that of the next frame, pulled
    back along the flow. Detail that only moves adds little; detail that appears or vanishes adds its contrast.
    """
    bands = high_pass(frames)
    changes = []
    for now, following, vectors in zip(bands[:-1], bands[1:], flows, strict=True):
        pulled, inside = pull_back(following, vectors)
        changes.append(np.abs(pulled - now)[inside].mean() if inside.any() else 0.0)
    return np.array(changes)


def motion(frames: np.ndarray) -> dict[str, float]:
    """Means over the pairs of frames of one clip [f, h, w, 3], in [-1, 1] or uint8; f is at least 2.

    Returns:
      'flow' in pixels per frame, 'change', the high-frequency change, and 'detail', the mean absolute high-frequency
      band, both in grey values. Compare the change with the detail.
    """
    if len(frames) < 2:
        raise ValueError(f'motion needs at least two frames, got {len(frames)}')
    flows = np.stack([flow(a, b) for a, b in zip(frames[:-1], frames[1:])])
    return {
        'flow': float(flow_length(flows).mean()),
        'change': float(high_frequency_change(frames, flows).mean()),
        'detail': float(np.abs(high_pass(frames)).mean()),
    }
