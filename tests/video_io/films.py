"""Files as other programs write them, for tests of reading."""

from fractions import Fraction

import av
import numpy as np

COLOURS = np.array([(200, 30, 40), (20, 180, 60), (10, 20, 230), (250, 240, 20), (255, 255, 255), (0, 0, 0)], np.uint8)


def bars(size):
    """Vertical bars of COLOURS, uint8 [h, w, 3]."""
    return COLOURS[np.arange(size[1]) * len(COLOURS) // size[1]][None].repeat(size[0], 0)


def bars_off(frame):
    """How far the middle of the bars in a frame is from COLOURS."""
    middles = (np.arange(len(COLOURS)) * 2 + 1) * frame.shape[1] // (2 * len(COLOURS))
    return np.abs(frame[frame.shape[0] // 2, middles].astype(int) - COLOURS).max()


def numbered(count, size=(32, 32)):
    """Frames that tell their number, below 64, by their grey: see `numbers`."""
    return np.full((count, *size, 3), 1, np.uint8) * (4 * np.arange(count, dtype=np.uint8)[:, None, None, None])


def numbers(frames):
    """The numbers of `numbered` frames."""
    return np.round(frames.mean((1, 2, 3)) / 4).astype(int)


def encode(path, frames, codec='libx264', times=None, fps=25, pix_fmt='yuv420p', format=None, **named):
    """Writes pictures (arrays, or av.VideoFrames) at `times`, in milliseconds; named: attributes of the encoder."""
    options = {'libx264': {'crf': '1'}, 'mpeg4': {'qscale': '1'}}.get(codec, {})
    with av.open(str(path), 'w', format=format) as file:
        stream = file.add_stream(codec, rate=fps, options=named.pop('options', options))
        first = frames[0]
        stream.height, stream.width = (first.height, first.width) if hasattr(first, 'height') else first.shape[:2]
        stream.pix_fmt = pix_fmt
        stream.metadata.update(named.pop('tags', {}))
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in named.items():
            setattr(stream.codec_context, name, value)
        for number, frame in enumerate(frames):
            if not hasattr(frame, 'height'):
                frame = av.VideoFrame.from_ndarray(frame, format={3: 'rgb24', 4: 'rgba'}[frame.shape[-1]])
            if times is not None:
                frame.pts, frame.time_base = int(times[number]), stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
