"""A video's frames to the size that the Refiner works on, and back: resize with the aspect kept, pad, crop."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from st2v_jax.models.unet3d import UNetConfig

BLACK = -1.0  # 0 in 8-bit frames


def accepted_size(size: tuple[int, int], unet: UNetConfig) -> tuple[int, int]:
    """The smallest latent (rows, columns) of at least `size` that the UNet returns at the same size.

    A strided convolution padded by p takes h to h / 2 + p - 1, and the way up undoes that if h is even: with the
    Refiner's (2, 1) and four levels, rows are 8n - 14 and columns 8n.
    """
    unit = 2 ** (len(unet.channels) - 1)

    def accepted(length, padding):
        grown = 2 * (unit - 1) * (padding - 1)
        return unit * math.ceil((length + grown) / unit) - grown

    return tuple(accepted(length, padding) for length, padding in zip(size, unet.padding, strict=True))


@dataclass(frozen=True)
class Canvas:
    """The size that the Refiner works on, and the video within it: (height, width) in pixels each.

    Attributes:
      size: of the video.
      whole: of the canvas, which is the video and the padding around it.
    """

    size: tuple[int, int]
    whole: tuple[int, int]

    @property
    def corner(self) -> tuple[int, int]:
        """(top, left) of the video, which lies in the middle."""
        return tuple((whole - size) // 2 for whole, size in zip(self.whole, self.size, strict=True))


def fit(video: tuple[int, int], box: tuple[int, int], unet: UNetConfig, factor: int = 8) -> Canvas:
    """The Canvas of a video: as large as fits into `box` with its aspect, padded to the box or a little more.

    The video's size is even, because H.264 stores colours at half the resolution. The whole canvas has a size that
    `unet` accepts.

    Args:
      video: (height, width) of the video.
      box: (height, width) that it is fitted into, (720, 1280) as released.
      unet: of the Refiner.
      factor: width of a latent in pixels.
    """
    if min(*video, *box) < 1:
        raise ValueError(f'sizes are at least 1 pixel, not {tuple(video)} in {tuple(box)}')
    scale = min(whole / length for whole, length in zip(box, video, strict=True))
    size = tuple(2 * max(1, round(length * scale / 2)) for length in video)
    latent = accepted_size([math.ceil(whole / factor) for whole in box], unet)
    return Canvas(size, tuple(factor * length for length in latent))


def to_canvas(frames: jax.Array, canvas: Canvas, profile: str = 'paper') -> jax.Array:
    """Frames [..., H, W, 3] in [-1, 1], resized and padded with black to the canvas, [..., h, w, 3].

    profile: 'paper' resizes bilinearly, 'release' bicubically.
    """
    lead, (rows, _, channels) = frames.shape[:-3], frames.shape[-3:]
    height, width = canvas.size
    if profile == 'release':  # columns, then rows, each pass on 8-bit numbers
        for shape in ((rows, width), (height, width)):
            frames = _eight_bit(jax.image.resize(frames, (*lead, *shape, channels), 'cubic'))
    elif profile == 'paper':
        frames = jax.image.resize(frames, (*lead, height, width, channels), 'linear')
    else:
        raise ValueError(f"profile is 'paper' or 'release', not {profile!r}")
    margins = [
        (corner, whole - corner - size)
        for corner, whole, size in zip(canvas.corner, canvas.whole, canvas.size, strict=True)
    ]
    return jnp.pad(frames, [(0, 0)] * len(lead) + margins + [(0, 0)], constant_values=BLACK)


def _eight_bit(frames):
    """Frames rounded to 8-bit values, but still floats in [-1, 1], for the next pass."""
    return jnp.round((jnp.clip(frames, -1, 1) + 1) * 127.5) / 127.5 - 1


def crop(frames: jax.Array, canvas: Canvas) -> jax.Array:
    """The video [..., h, w, 3], cut out of frames [..., H, W, 3] of the whole canvas."""
    (top, left), (height, width) = canvas.corner, canvas.size
    return frames[..., top : top + height, left : left + width, :]
