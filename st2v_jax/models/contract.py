"""What the streaming stage knows of a video model: chunks, latents, text, process and null condition; nothing else.

The streaming stage computes the number of chunks and the frame numbers of noise from this alone, so that another
backbone needs no change there.
"""

import math
from dataclasses import dataclass

import jax

from st2v_jax.diffusion.schedule import DiffusionConfig


@dataclass(frozen=True)
class Contract:
    """A video model as the streaming stage sees it.

    Attributes:
      first_frames, later_frames: pixel frames of the first chunk, and of each later one including its `memory`.
      memory: how many of the last pixel frames condition the next chunk, which generates them again as its first.
      group_frames, group_latents: the autoencoder codes `group_frames` pixel frames together as `group_latents` latent
        frames; both are 1 if it codes frame by frame.
      frame_size: (height, width) of a frame in pixels.
      latent_size: (height, width, channels) of a latent frame.
      text_tokens: length of a tokenized prompt.
      text_masked: whether the network receives a mask of the padding tokens.
      process: the forward process; the network receives a noise level as its step, 0 .. process.steps - 1.
      null_anchor: pixel value in [-1, 1] of the uniform image that stands for no anchor. (The empty or the negative
        prompt stands for no text.)
      given: whether the video goes on from frames that were given: then its chunk 0 is like the later ones. Frames are
        counted from the first new one.
    """

    first_frames: int
    later_frames: int
    memory: int
    frame_size: tuple[int, int]
    latent_size: tuple[int, int, int]
    text_tokens: int
    process: DiffusionConfig
    group_frames: int = 1
    group_latents: int = 1
    text_masked: bool = False
    null_anchor: float = 0.0
    given: bool = False

    def __post_init__(self):
        for name in ('first_frames', 'later_frames', 'memory'):
            if getattr(self, name) % self.group_frames:
                raise ValueError(
                    f'{name}={getattr(self, name)} is not a multiple of the {self.group_frames} frames coded together'
                )
        if not 0 < self.memory < self.later_frames or self.memory > self.first_frames:
            raise ValueError(
                f'chunks of {self.first_frames} and {self.later_frames} frames do not have {self.memory} in common'
            )

    @property
    def stride(self) -> int:
        """New pixel frames of a later chunk."""
        return self.later_frames - self.memory

    @property
    def opening(self) -> int:
        """New pixel frames of chunk 0."""
        return self.stride if self.given else self.first_frames

    def frames(self, first: bool) -> int:
        """Pixel frames of the first chunk or of a later one."""
        return self.first_frames if first else self.later_frames

    def latents(self, frames: int) -> int:
        """Latent frames of this many pixel frames, a multiple of `group_frames`."""
        return frames // self.group_frames * self.group_latents

    def latent_shape(self, first: bool) -> tuple[int, int, int, int]:
        """(f, h, w, c) of a chunk's latents."""
        return self.latents(self.frames(first)), *self.latent_size

    def begins_at(self, index: int | jax.Array, first: bool) -> int | jax.Array:
        """The absolute number of the first latent frame of chunk `index`, which may be a traced value."""
        start = index * self.latents(self.stride)
        if not first and self.first_frames != self.later_frames:
            start += self.latents(self.first_frames - self.later_frames)
        return start

    def chunks(self, num_frames: int) -> int:
        """Chunks needed for num_frames frames."""
        return 1 + max(0, math.ceil((num_frames - self.opening) / self.stride))

    def frames_after(self, chunks: int) -> int:
        """Pixel frames of a video of this many chunks, at least 1 chunk."""
        return self.opening + (chunks - 1) * self.stride
