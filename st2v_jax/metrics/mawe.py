"""MAWE, the motion-aware warp error (Henschel et al. 2024, section 5.1).

A good video moves and is consistent: a pixel that moves from one frame to the next looks the same in both. MAWE is the
squared warp error divided by the amount of motion, so neither flicker nor a standing picture is rewarded.
"""

import numpy as np

from st2v_jax.metrics.flow import flow_length

C = 9.5  # brings the error and the motion of real videos to the same scale


def warp(images: np.ndarray, flows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves each pixel of images [n, h, w, c] along its flow [n, h, w, 2], (x, y) in pixels.

    Targets are rounded half to even. Where several pixels have the same target, the last one in row-major order stays.
    Pixels that leave the image are dropped.

    Returns:
      warped [n, h, w, c], zero where no pixel landed, and known [n, h, w], True where one did.
    """
    n, h, w, _ = images.shape
    if flows.shape != (n, h, w, 2):
        raise ValueError(f'flows {flows.shape} do not fit images {images.shape}: they are [n, h, w, 2]')
    grid = np.stack(np.meshgrid(np.arange(w, dtype=flows.dtype), np.arange(h, dtype=flows.dtype)), axis=-1)
    x, y = np.moveaxis(np.round(grid + flows), -1, 0)
    kept = np.nonzero((x >= 0) & (x < w) & (y >= 0) & (y < h))
    target = kept[0], y[kept].astype(int), x[kept].astype(int)
    warped, known = np.zeros_like(images), np.zeros((n, h, w), bool)
    warped[target] = images[kept]  # numpy keeps the last of several values for one index
    known[target] = True
    return warped, known


def warp_error(images: np.ndarray, flows: np.ndarray, following: np.ndarray) -> float:
    """Mean squared difference between images [n, h, w, c] warped along flows and the images that follow them.

    The mean is over all channels of the pixels where a pixel landed; inf if none did.
    """
    warped, known = warp(images, flows)
    squares = np.square(np.asarray(following, np.float64) - warped)
    return float(squares[known].mean()) if known.any() else float('inf')


def mawe(frames: np.ndarray, flows: np.ndarray, *, profile: str = 'release') -> float:
    """MAWE of one video, from 0 on; lower is better. A video (or a pair of frames) that stands still gives inf.

    Args:
      frames: [f, h, w, 3] in 0..255. The paper's are 720x720; flow is in pixels, so values of other sizes differ.
      flows: [f - 1, h, w, 2] in pixels, from each frame to the next. The paper's are of RAFT-Large.
      profile: see `ratio`.
    """
    frames, flows = np.asarray(frames), np.asarray(flows)
    if len(flows) != len(frames) - 1 or not len(flows):
        raise ValueError(f'{len(frames)} frames need {len(frames) - 1} flows, got {len(flows)}')
    return ratio(np.array([parts(*pair) for pair in zip(frames[:-1], frames[1:], flows)]), profile=profile)


def parts(image: np.ndarray, following: np.ndarray, flow: np.ndarray) -> tuple[float, float, float]:
    """What MAWE needs of two consecutive frames [h, w, 3] in 0..255 and the flow [h, w, 2] between them.

    Returns:
      The warp error, the mean length of the flow and the mean of its square.
    """
    image, following, flow = np.float32(image)[None], np.float32(following)[None], np.asarray(flow)[None]
    square = np.square(flow, dtype=np.float64).sum(-1).mean()
    return warp_error(image, flow, following), float(flow_length(flow)[0]), float(square)


def ratio(pairs: np.ndarray, *, profile: str = 'release') -> float:
    """MAWE of a video from the `parts` [f - 1, 3] of its pairs of frames.

    profile: 'release' divides the error of each pair by the mean length of its flow and averages over pairs; 'paper'
      divides the mean error of the video by its mean squared flow length.
    """
    errors, lengths, squares = np.asarray(pairs, np.float64).T
    if profile == 'release':
        return float(_ratio(errors, lengths).mean() / C)
    if profile == 'paper':
        return float(_ratio(errors.mean(), squares.mean()) / C)
    raise ValueError(f"profile is 'paper' or 'release', not {profile!r}")


def _ratio(error, motion):
    return np.where(motion > 0, error / np.where(motion > 0, motion, 1), np.inf)
