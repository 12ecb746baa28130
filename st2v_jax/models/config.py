"""The sizes of a whole model, to and from JSON."""

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any

from st2v_jax.diffusion.schedule import DiffusionConfig
from st2v_jax.models.ablations import ATTENTION
from st2v_jax.models.apm import ApmConfig
from st2v_jax.models.cam import CamConfig
from st2v_jax.models.clip import ImageConfig, TextConfig
from st2v_jax.models.contract import Contract
from st2v_jax.models.refiner import RefinerConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The whole system; the defaults are the released size.

    Attributes:
      frame_size: (height, width) of a frame in pixels.
      frames, memory: frames of a chunk, and how many of the previous chunk condition it.
      backbone: config of the network that denoises; each kind of network has a class of its own.
      scale_factor: latents are autoencoder means times this.
      profile: sampling rules, 'paper' or 'release'.
      guidance_text, guidance_anchor: default guidance scales.
      apm: config of the long-term memory; None is a model without one.
      initial: whether the first chunk has a UNet of its own, with the sizes of `backbone`, as in the release.
      refiner: config of the refinement stage.
    """

    frame_size: tuple[int, int] = (256, 256)
    frames: int = 16
    memory: int = 8
    backbone: UNetConfig = UNetConfig()
    cam: CamConfig = CamConfig()
    apm: ApmConfig | None = ApmConfig()
    vae: VaeConfig = VaeConfig()
    text: TextConfig = TextConfig()
    image: ImageConfig = ImageConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    scale_factor: float = 0.18215
    profile: str = 'paper'
    guidance_text: float = 7.5
    guidance_anchor: float = 7.5
    initial: bool = False
    refiner: RefinerConfig = RefinerConfig()

    def __post_init__(self):
        if self.profile not in ('paper', 'release'):
            raise ValueError(f"profile is 'paper' or 'release', got {self.profile!r}")
        if len(self.frame_size) != 2 or any(side < 1 or side % self.vae.downsampling for side in self.frame_size):
            unit = self.vae.downsampling
            raise ValueError(f'frame_size is (height, width), multiples of {unit}, not {self.frame_size}')

    def sized(self, frame_size: tuple[int, int] | None) -> 'ModelConfig':
        """This config with frames of another (height, width) in pixels; None leaves them.

        Raises ValueError unless the autoencoder and every level of the denoiser divide both evenly.
        """
        if frame_size is None or tuple(frame_size) == self.frame_size:
            return self
        height, width = frame_size
        unit = self.vae.downsampling * self.backbone.downsampling
        if min(height, width) < 1 or height % unit or width % unit:
            raise ValueError(f'frames of this model have multiples of {unit} pixels, not {height}x{width}')
        return dataclasses.replace(self, frame_size=(height, width))

    @functools.cached_property
    def contract(self) -> Contract:
        """What the streaming stage knows of this model."""
        height, width = (side // self.vae.downsampling for side in self.frame_size)
        return Contract(
            first_frames=self.frames,
            later_frames=self.frames,
            memory=self.memory,
            frame_size=self.frame_size,
            latent_size=(height, width, self.backbone.in_channels),
            text_tokens=self.text.max_tokens,
            process=self.diffusion,
        )

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(f, h, w, c) of one chunk's latents."""
        return self.contract.latent_shape(first=True)

    @property
    def conditioning_frames(self) -> int:
        """How many frames of a chunk its short-term memory may receive: m in CAM, all in an ablation model."""
        return self.memory if self.cam.fusion == ATTENTION else self.frames

    @property
    def for_refinement(self) -> 'ModelConfig':
        """This config with the `vae`, `text` and `scale_factor` that the Refiner uses."""
        own = {name: getattr(self.refiner, name) for name in ('vae', 'text') if getattr(self.refiner, name) is not None}
        if 'vae' in own:
            own['scale_factor'] = self.refiner.scale_factor
        return dataclasses.replace(self, **own)

    def to_dict(self) -> dict[str, Any]:
        """The config as a nested dict of JSON values."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'ModelConfig':
        """The inverse of `to_dict`. Raises ValueError with every unknown or missing key."""
        complaints = []
        config = _from_dict((cls,), values, '', complaints)
        if complaints:
            raise ValueError('model config does not fit: ' + '; '.join(complaints))
        return config


def _to_dict(config):
    """Nested dict of a config; a class with a KIND stores it, which tells it from others in the same field."""
    kind = {'kind': config.KIND} if hasattr(config, 'KIND') else {}
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return kind | {name: _to_dict(v) if dataclasses.is_dataclass(v) else v for name, v in values.items()}


def _from_dict(options, values, path, complaints):
    """The config of these values. If the classes in `options` have a KIND, the value of `kind` selects one of them.

    A class names in LATER the fields that weights written before them lack; their defaults are what those weights had.
    """
    where = path.rstrip('.') or 'it'
    if not isinstance(values, Mapping):
        complaints.append(f'{where} is not a mapping but {values!r}')
        return None
    values = dict(values)
    kinds = {cls.KIND: cls for cls in options if hasattr(cls, 'KIND')}
    kind = values.pop('kind', None) if kinds else None
    if kinds and kind not in kinds:
        complaints.append(f'{path}kind is one of {", ".join(kinds)}, not {kind!r}')
        return None
    cls = kinds[kind] if kinds else options[0]
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    complaints += [f'unknown key {path}{name}' for name in values if name not in fields]
    later = getattr(cls, 'LATER', ())
    complaints += [f'missing key {path}{name}' for name in fields if name not in values and name not in later]
    hints = typing.get_type_hints(cls)
    made = {}
    for name in (name for name in fields if name in values):
        value, hint = values[name], hints[name]
        nested = [option for option in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(option)]
        if nested and not (value is None and type(None) in typing.get_args(hint)):
            value = _from_dict(nested, value, f'{path}{name}.', complaints)
        made[name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return None if complaints else cls(**made)
