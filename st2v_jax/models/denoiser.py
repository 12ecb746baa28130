"""The streaming denoiser: Video-LDM with CAM and APM, eps_theta(x_t, t, tau, conditioning frames, anchor frame)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.ablations import CONCATENATION, ConcCond
from st2v_jax.models.apm import Apm, ApmConfig
from st2v_jax.models.attention import KeysValues
from st2v_jax.models.cam import Cam, CamConfig
from st2v_jax.models.unet3d import UNet3D, UNetConfig


class Condition(NamedTuple):
    """What stays the same through all denoising steps of a chunk, computed once.

    Attributes:
      unet: keys and values of each cross-attention of the UNet.
      extractor: the same of CAM's extractor, or None without one.
      memory: features [b, m, h, w, c] of the conditioning frames, or None.
    """

    unet: list[KeysValues]
    extractor: list[KeysValues] | None = None
    memory: jax.Array | None = None


class StreamingDenoiser(nnx.Module):
    """UNet, CAM and APM. Without frames and anchor it is the plain Video-LDM that generates the first chunk.

    The short-term memory may be one other than CAM, see `CamConfig.fusion`; with apm=None there is no long-term one.
    """

    def __init__(
        self, unet: UNetConfig, cam: CamConfig, apm: ApmConfig | None, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        kind = dict(dtype=dtype, rngs=rngs)
        self.unet = UNet3D(unet, **kind)
        self.cam = ConcCond(unet, **kind) if cam.fusion == CONCATENATION else Cam(cam, unet, **kind)
        if apm is not None:
            self.apm = Apm(apm, unet.context_width, len(self.unet.cross_attentions()), **kind)

    def anchor_tokens(self, image_embedding: jax.Array) -> jax.Array:
        """The tokens [b, s, c] that `condition` receives for anchor frames, from their CLIP embeddings [b, e]."""
        return self.apm.anchor(image_embedding)

    def condition(
        self, text: jax.Array, frames: jax.Array | None = None, anchor: jax.Array | None = None, *, texts: int = 1
    ) -> Condition:
        """The chunk's Condition, for a batch of n * b: n guidance branches of b videos.

        Args:
          text: [n * b, 77, c] text tokens.
          frames: what `ablations.remembered` makes of the conditioning frames; for CAM these are the frames themselves,
            [b, m, H, W, 3] in [-1, 1]. None means no short-term memory.
          anchor: [n * b, s, c] tokens of the anchor frame; None means no long-term memory.
          texts: how many branches have a text of their own; they come first. The others differ from the last of these
            in the anchor alone, which CAM does not see, so CAM's features are computed once for them.
        """
        unet = self.unet.keys_values(text if anchor is None else self.apm.contexts(text, anchor))
        if frames is None:
            return Condition(unet)
        own = text[: texts * len(frames)]
        return Condition(unet, self.cam.keys_values(own), self.cam.encode(frames))

    def __call__(self, x: jax.Array, t: jax.Array, condition: Condition, *, remat: str = 'none') -> jax.Array:
        """Float32 prediction [n * b, f, h, w, 4] for noisy latents x [b, f, h, w, 4] at diffusion steps t [b].

        Args:
          x: noisy latents, the same for the n guidance branches of a video.
          t: diffusion steps.
          condition: as from `condition`, for n * b.
          remat: which values are kept for a gradient, as in `UNet3D`.
        """
        if condition.memory is None:
            return self.unet(x, t, condition.unet, remat=remat)
        features = self.cam.extract(x, t, condition.extractor, condition.memory, remat=remat)
        return self.unet(x, t, condition.unet, **self.cam.joins(features), remat=remat)
