"""The streaming denoiser: Video-LDM with CAM and APM, eps_theta(x_t, t, tau, conditioning frames, anchor frame)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from st2v_jax.models.ablations import CONCATENATION, ConcCond
from st2v_jax.models.apm import Apm, ApmConfig
from st2v_jax.models.cam import Cam, CamConfig
from st2v_jax.models.unet3d import UNet3D, UNetConfig


class Condition(NamedTuple):
    """What stays the same through all denoising steps of a chunk, computed once.

    Attributes:
      unet: keys and values of each cross-attention of the UNet.
      extractor: the same for CAM's extractor, or None where there is none.
      frames: features [k, m, h, w, c] of the conditioning frames, or None.
    """

    unet: Any
    extractor: Any = None
    frames: Any = None


class StreamingDenoiser(nnx.Module):
    """UNet, CAM and APM. Without frames and anchor it is the plain Video-LDM that makes the first chunk.

    `cam` may be another short-term memory, see `CamConfig.fusion`; without an ApmConfig there is no long-term one.
    """

    def __init__(self, unet: UNetConfig, cam: CamConfig, apm: ApmConfig | None, *, dtype=jnp.float32, rngs):
        kind = dict(dtype=dtype, rngs=rngs)
        self.unet = UNet3D(unet, **kind)
        self.cam = ConcCond(unet, **kind) if cam.fusion == CONCATENATION else Cam(cam, unet, **kind)
        if apm is not None:
            self.apm = Apm(apm, unet.context_width, len(self.unet.cross_attentions()), **kind)

    def condition(self, text, frames=None, image_embedding=None):
        """The chunk's Condition.

        Args:
          text: [b, 77, c] text tokens.
          frames: what `ablations.remembered` makes of the conditioning frames, for CAM themselves, [k, m, H, W, 3] in
            [-1, 1]; or None: no short-term memory. k is b, or less where the last b - k of the batch differ in the
            anchor alone from the b - k before them: CAM does not see the anchor, so such guidance branches share what
            it remembers.
          image_embedding: [b, e] CLIP embedding of the anchor frame, or None: no long-term memory.
        """
        texts = text if image_embedding is None else self.apm.contexts(text, image_embedding)
        unet = self.unet.keys_values(texts)
        if frames is None:
            return Condition(unet)
        return Condition(unet, self.cam.keys_values(text[:len(frames)]), self.cam.encode(frames))

    def __call__(self, x, t, condition, *, remat='none'):
        """Prediction [b, f, h, w, 4], float32, for noisy latents x [b, f, h, w, 4] at diffusion steps t [b].

        remat: which values are kept for a gradient, as in `UNet3D`.
        """
        if condition.frames is None:
            return self.unet(x, t, condition.unet, remat=remat)
        own = len(condition.frames)
        memory = self.cam.extract(x[:own], t[:own], condition.extractor, condition.frames, remat=remat)
        memory = jax.tree.map(lambda of: jnp.concatenate([of, of[2 * own - len(x):]]) if own < len(x) else of, memory)
        return self.unet(x, t, condition.unet, **self.cam.joins(memory), remat=remat)
