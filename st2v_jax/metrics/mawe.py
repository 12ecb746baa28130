"""MAWE: how much of a video's change its motion does not explain, per unit of motion (Henschel et al. 2024, sec. 5.1).

A good video moves and is consistent: what flows from one frame to the next looks the same there. MAWE is the squared
warp error divided by the amount of motion, so neither flicker nor standing still is rewarded.
"""

import numpy as np

from st2v_jax.metrics.flow import flow_length

C = 9.5  # brings error and motion of real videos to one scale


def warp(images, flows):
    """Pushes every pixel along its flow: images [n,h,w,c], flows [n,h,w,2] in pixels, (x, y).

    Returns warped [n,h,w,c], zero where nothing landed, and known [n,h,w], True where something did. Targets are
    rounded half to even; of several pixels with one target the last in row-major order stays; what leaves the image
    is dropped.
    """
    n, h, w, _ = images.shape
    if flows.shape != (n, h, w, 2):
        raise ValueError(f'flows {flows.shape} do not belong to images {images.shape}: they are [n,h,w,2]')
    grid = np.stack(np.meshgrid(np.arange(w, dtype=flows.dtype), np.arange(h, dtype=flows.dtype)), axis=-1)
    x, y = np.moveaxis(np.round(grid + flows), -1, 0)
    kept = np.nonzero((x >= 0) & (x < w) & (y >= 0) & (y < h))
    target = kept[0], y[kept].astype(int), x[kept].astype(int)
    warped, known = np.zeros_like(images), np.zeros((n, h, w), bool)
    warped[target] = images[kept]  # numpy keeps the last of several values for one place
    known[target] = True
    return warped, known


def warp_error(images, flows, following):
    """Mean squared difference between images [n,h,w,c] pushed along flows and the images that follow.

    Over all channels of all pixels where something landed; inf where nothing did.
    """
    warped, known = warp(images, flows)
    squares = np.square(np.asarray(following, np.float64) - warped)
    return float(squares[known].mean()) if known.any() else float('inf')


def mawe(frames, flows, *, profile='release'):
    """MAWE of one video: frames [f,h,w,3] in 0..255, flows [f-1,h,w,2] in pixels from each frame to the next.

    profile 'release' divides each pair's error by the mean length of its flow and averages over pairs; 'paper' divides
    the mean error of the video by its mean squared flow length. A video (or a pair) that stands still gives inf.
    """
    frames, flows = np.asarray(frames, np.float32), np.asarray(flows)
    if len(flows) != len(frames) - 1 or not len(flows):
        raise ValueError(f'{len(frames)} frames have {len(frames) - 1} flows between them, got {len(flows)}')
    errors = np.array(
        [warp_error(frames[i : i + 1], flows[i : i + 1], frames[i + 1 : i + 2]) for i in range(len(flows))]
    )
    if profile == 'release':
        return float(_ratio(errors, flow_length(flows)).mean() / C)
    if profile == 'paper':
        return float(_ratio(errors.mean(), np.square(flows, dtype=np.float64).sum(-1).mean()) / C)
    raise ValueError(f"profile is 'paper' or 'release', got {profile!r}")


def _ratio(error, motion):
    return np.where(motion > 0, error / np.where(motion > 0, motion, 1), np.inf)
