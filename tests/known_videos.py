"""Videos whose answer is known, and defects of a given strength from 0 on."""

import numpy as np


def texture(height, width, seed=0, sigma=3):
    """A smooth random picture, uint8 [height, width, 3]."""
    import cv2

    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.uint8(np.clip(128 + 100 * smooth / np.abs(smooth).max(), 0, 255))


def panning(frames=12, speed=2, size=64, seed=0):
    """A window that moves over a texture by `speed` pixels per frame to the right, uint8 [frames, size, size, 3]."""
    wide = texture(size, size + speed * frames, seed)
    return np.stack([wide[:, speed * i : speed * i + size] for i in range(frames)])


def changed(video, change):
    """The video as uint8 after change(frame as float32, position in 0..1, index) of each frame."""
    ends = max(1, len(video) - 1)
    frames = [change(frame.astype(np.float32), i / ends, i) for i, frame in enumerate(video)]
    return np.uint8(np.round(np.clip(frames, 0, 255)))


def flickering(video, strength):
    """Every second frame is `strength` levels brighter."""
    return changed(video, lambda frame, _, i: frame + strength * (i % 2))


def reddening(video, strength):
    """Red rises by `strength` levels until the last frame."""
    return changed(video, lambda frame, at, _: frame + np.float32([strength * at, 0, 0]))


def bleaching(video, strength):
    """Colour goes, all of it with strength 1."""
    return changed(video, lambda frame, at, _: frame + strength * at * (frame.mean(-1, keepdims=True) - frame))


def blurring(video, strength):
    """Frames are blurred more and more, at the end with a Gaussian of `strength` pixels."""
    import cv2

    blur = lambda frame, at, _: cv2.GaussianBlur(frame, (0, 0), strength * at) if strength * at > 0.1 else frame
    return changed(video, blur)


def noisy(video, strength):
    """Noise of its own in each frame, with a standard deviation of `strength` levels."""
    rng = np.random.default_rng(1)
    return changed(video, lambda frame, *_: frame + strength * rng.standard_normal(frame.shape))


def freezing(video, strength):
    """The last `strength` frames repeat the one before them."""
    last = len(video) - 1 - strength
    return video[np.minimum(np.arange(len(video)), last)]


def zooming(frames=12, rate=1.02, size=64, seed=0):
    """A window onto a texture that grows by `rate` per frame around its centre, uint8 [frames, size, size, 3]."""
    import cv2

    picture, middle = texture(2 * size, 2 * size, seed, sigma=2), size - 0.5
    views = []
    for i in range(frames):
        scale = rate**i
        shift = (size - 1) / 2 - scale * middle
        views.append(cv2.warpAffine(picture, np.float32([[scale, 0, shift], [0, scale, shift]]), (size, size)))
    return np.stack(views)
