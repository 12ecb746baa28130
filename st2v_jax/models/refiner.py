"""The Refiner: a second Video-LDM for large frames, which adds noise to a finished video and denoises it again.

Its network is `UNet3D`, with strided convolutions padded by (2, 1) in the released size.
"""

from dataclasses import dataclass

from st2v_jax.diffusion.log_snr import RefinerProcess
from st2v_jax.models.clip import TextConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig


@dataclass(frozen=True)
class RefinerConfig:
    """Sizes of the Refiner and the settings it is sampled with; the defaults are those of MS-Vid2Vid-XL.

    Attributes:
      unet: its network, which predicts v.
      process: its forward process.
      vae, text: its own autoencoder and text tower; None if it uses those of the streaming stage.
      scale_factor: latents are means of its own autoencoder times this.
      box: (height, width) in pixels that a video is fitted into.
      steps, start, length, overlap, guidance, rescale: see `RefineSettings`.
      scaled_start: whether SDEdit's noised latents are multiplied by their sigma, as the release does.
    """

    unet: UNetConfig = UNetConfig(padding=(2, 1))
    process: RefinerProcess = RefinerProcess()
    vae: VaeConfig | None = VaeConfig()
    text: TextConfig | None = TextConfig()
    scale_factor: float = 0.18215
    box: tuple[int, int] = (720, 1280)
    steps: int = 30
    start: int = 599
    length: int = 24
    overlap: int = 8
    guidance: float = 7.5
    rescale: float = 0.2
    scaled_start: bool = True
