"""Pixels between files and arrays: ranges of numbers, colour matrices, transparency, and which way is up."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av
    import jax

HD = 720  # lines from which a video that does not say so is BT.709; below, it is BT.601
MAX_PIXELS = 2**26  # of a frame, 8192x8192: what claims more is damaged, or would not fit into memory

# ffmpeg's numbers for colour matrices (AVColorSpace), and for primaries and transfer (BT.709 is 1 in all three)
BT709, UNSPECIFIED, SMPTE170M, LIMITED = 1, 2, 6, 1
CONVERTED = (BT709, 4, 5, SMPTE170M, 7, 9)  # matrices that its scaler knows: BT.709, FCC, BT.601 (two), 240M, BT.2020


def to_uint8(frames: 'np.ndarray | jax.Array') -> np.ndarray:
    """Frames as uint8 0..255: floats in [-1, 1] are clipped, uint8 is returned as it is. Raises ValueError for NaN."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return frames
    if np.isnan(frames).any():
        raise ValueError('frames contain NaN: the model with these settings made no picture')
    return np.uint8(np.round((np.clip(frames, -1, 1) + 1) * 127.5))


def to_floats(frames: 'np.ndarray | jax.Array') -> 'np.ndarray | jax.Array':
    """uint8 frames as float32 in [-1, 1]."""
    return frames.astype(np.float32) / 127.5 - 1


def on_black(rgba: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 4] over black, [h, w, 3]: players show black behind a video, and hidden colours stay hidden."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)


def shown(frame: 'av.VideoFrame', height: int, width: int, *, exact: bool) -> np.ndarray:
    """A decoded frame as uint8 [height, width, 3], not yet turned.

    The colour matrix is the one that the frame names; without a name it is BT.709 from 720 lines on, else BT.601.
    exact: colours are right to a level; otherwise chroma is not interpolated, and colours are up to three levels too
    dark, in a tenth of the time.
    """
    from av.video.reformatter import Interpolation

    flags = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | (Interpolation.ACCURATE_RND if exact else 0)
    scaled = {'height': height, 'width': width, 'interpolation': flags}
    if not frame.format.is_rgb and frame.colorspace not in CONVERTED:
        frame.colorspace = BT709 if frame.height >= HD else SMPTE170M
    if any(component.is_alpha for component in frame.format.components) or frame.format.has_palette:
        return on_black(frame.to_ndarray(format='rgba', **scaled))
    return frame.to_ndarray(format='rgb24', **scaled)


def coded(frame: np.ndarray) -> 'av.VideoFrame':
    """A frame uint8 [h, w, 3] as limited-range yuv420p: in BT.709 from 720 lines on, else in BT.601, and tagged so.

    Players that heed tags and those that guess by the size then agree. Primaries and transfer are those of BT.709 in
    both, for the frames are sRGB.
    """
    import av
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    matrix = Colorspace.ITU709 if frame.shape[0] >= HD else Colorspace.ITU601
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
    exact = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
    picture = picture.reformat(
        format='yuv420p', dst_colorspace=matrix, dst_color_range=ColorRange.MPEG, interpolation=exact
    )
    tag(picture, frame.shape[0])
    return picture


def tag(target: 'av.VideoFrame | av.VideoCodecContext', height: int) -> None:
    """Names the colours of `coded` in a frame or in an encoder."""
    target.colorspace = BT709 if height >= HD else SMPTE170M
    target.color_range, target.color_primaries, target.color_trc = LIMITED, BT709, BT709


class Turn:
    """Turns and mirrors frames [h, w, c] as the display matrix of a frame says: one of the eight ways."""

    def __init__(self, frame: 'av.VideoFrame'):
        (a, b), (c, d) = _matrix(frame)
        self._transposed = abs(b) + abs(c) > abs(a) + abs(d)
        down, right = (b, c) if self._transposed else (d, a)  # where the axes of the shown frame come from
        self._mirrored = tuple(axis for axis, sign in ((0, down), (1, right)) if sign < 0)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.swapaxes(0, 1) if self._transposed else pixels
        return np.flip(pixels, self._mirrored) if self._mirrored else pixels


def _matrix(frame):
    """The part of the display matrix that turns: rows are where the axes x and y of the stored frame point to."""
    try:
        matrix = np.frombuffer(bytes(frame.side_data['DISPLAYMATRIX']), '=i4').reshape(3, 3)
        return matrix[:2, :2].tolist()
    except KeyError:
        return (1, 0), (0, 1)
    except ValueError:  # side data of a kind that PyAV does not know yet: it still tells the angle
        angle = np.deg2rad(frame.rotation)
        return (np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))
