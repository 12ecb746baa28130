"""The door between modules and the program: configs become pure functions on plain parameter trees.

A network here is a function of (parameters, arrays); its parameters are a nested dict with string keys. Everything
else (optimizer, checkpoints, sharding, sampling) sees only these.
"""

import dataclasses
import functools
import types
import typing
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from st2v_jax.diffusion.schedule import DiffusionConfig
from st2v_jax.models.ablations import ATTENTION
from st2v_jax.models.apm import ApmConfig
from st2v_jax.models.cam import CamConfig
from st2v_jax.models.clip import ImageConfig, ImageTower, TextConfig, TextTower
from st2v_jax.models.contract import Contract
from st2v_jax.models.denoiser import StreamingDenoiser
from st2v_jax.models.refiner import RefinerConfig
from st2v_jax.models.unet3d import UNet3D, UNetConfig
from st2v_jax.models.vae import Autoencoder, VaeConfig


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The whole system; the defaults are the released size.

    Attributes:
      frame_size: (height, width) of a frame in pixels.
      frames, memory: frames of a chunk, and how many of the previous chunk condition it.
      scale_factor: latents are autoencoder means times this.
      profile: sampling rules, 'paper' or 'release'.
      guidance_text, guidance_anchor: guidance scales this model is sampled with unless told otherwise.
      apm: None is a model without long-term memory.
      initial: whether the first chunk is drawn by a UNet of its own, with the sizes of `unet`, as in the release.
      refiner: of the refinement stage.
    """

    frame_size: tuple[int, int] = (256, 256)
    frames: int = 16
    memory: int = 8
    unet: UNetConfig = UNetConfig()
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

    @functools.cached_property
    def contract(self) -> Contract:
        """What the streaming stage knows of this model."""
        height, width = (side // self.vae.downsampling for side in self.frame_size)
        return Contract(
            first_frames=self.frames,
            later_frames=self.frames,
            memory=self.memory,
            frame_size=self.frame_size,
            latent_size=(height, width, self.unet.in_channels),
            text_tokens=self.text.max_tokens,
            process=self.diffusion,
        )

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(f, h, w, c) of one chunk's latents."""
        return self.contract.latent_shape(first=True)

    @property
    def conditioning_frames(self) -> int:
        """Frames of a chunk that its short-term memory may be given: CAM the first m, an ablation model any."""
        return self.memory if self.cam.fusion == ATTENTION else self.frames

    @property
    def for_refinement(self) -> 'ModelConfig':
        """The config whose `vae`, `text` and `scale_factor` are those that the Refiner works with."""
        own = {name: getattr(self.refiner, name) for name in ('vae', 'text') if getattr(self.refiner, name) is not None}
        if 'vae' in own:
            own['scale_factor'] = self.refiner.scale_factor
        return dataclasses.replace(self, **own)

    def to_dict(self) -> dict[str, Any]:
        """Nested dict of JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'ModelConfig':
        """Inverse of `to_dict`. Raises ValueError naming every unknown or missing key."""
        complaints = []
        config = _from_dict(cls, values, '', complaints)
        if complaints:
            raise ValueError('model config does not fit: ' + '; '.join(complaints))
        return config


def _from_dict(cls, values, path, complaints):
    if not isinstance(values, Mapping):
        complaints.append(f'{path.rstrip(".") or "it"} is not a mapping but {values!r}')
        return None
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    complaints += [f'unknown key {path}{name}' for name in values if name not in fields]
    complaints += [f'missing key {path}{name}' for name in fields if name not in values]
    kinds = typing.get_type_hints(cls)
    made = {}
    for name in (name for name in fields if name in values):
        value, kind = values[name], kinds[name]
        options = typing.get_args(kind)
        if type(None) in options and value is not None:
            kind = options[0]
        if dataclasses.is_dataclass(kind):
            value = _from_dict(kind, value, f'{path}{name}.', complaints)
        made[name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return None if complaints else cls(**made)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A module as a pure function; `network` makes one for each module, config and dtype, so identity is equality.

    Attributes:
      graphdef: the module without its parameters.
      abstract: its parameters as a nested dict of jax.ShapeDtypeStruct with string keys.
    """

    graphdef: Any
    abstract: dict[str, Any]

    def __call__(self, params, *args, method='__call__', **kwargs):
        """Calls `method` of the module with these parameters; pure, so it may be traced by jax.jit."""
        # Networks that are not at hand stay shapes: a Video-LDM runs before there is a CAM or an APM.
        module = nnx.merge(self.graphdef, _integer_keys({**self.abstract, **params}))
        return getattr(module, method)(*args, **kwargs)


def _integer_keys(tree):
    """Lists inside modules are keyed by integers; outside the door all keys are strings."""
    if not isinstance(tree, Mapping):
        return tree
    return {int(key) if key.isdigit() else key: _integer_keys(value) for key, value in tree.items()}


def _string_keys(tree):
    if not isinstance(tree, Mapping):
        return tree
    return {str(key): _string_keys(value) for key, value in tree.items()}


def network(module, *args, dtype=jnp.float32) -> Network:
    """The Network of `module(*args)`, computing in `dtype`; nothing is allocated, and equal calls get the same one."""
    return _network(module, args, jnp.dtype(dtype))


@functools.cache
def _network(module, args, dtype):
    # Initialisers ask for a key and ignore it; drawing real ones would take most of the time of building.
    unborn = types.SimpleNamespace(params=lambda: None)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: module(*args, dtype=dtype, rngs=unborn)))
    return Network(graphdef, _string_keys(nnx.to_pure_dict(state)))


def denoiser(config: ModelConfig, dtype=jnp.float32) -> Network:
    """UNet, CAM and APM: `StreamingDenoiser`, with parameters under 'unet', 'cam' and 'apm'."""
    return network(StreamingDenoiser, config.unet, config.cam, config.apm, dtype=dtype)


def vae(config: ModelConfig, dtype=jnp.float32) -> Network:
    """Frame-wise autoencoder with methods 'encode' and 'decode': `Autoencoder`."""
    return network(Autoencoder, config.vae, dtype=dtype)


def text_tower(config: ModelConfig, dtype=jnp.float32) -> Network:
    """Token ids [b, 77] -> text tokens [b, 77, c]: `TextTower`."""
    return network(TextTower, config.text, dtype=dtype)


def image_tower(config: ModelConfig, dtype=jnp.float32) -> Network:
    """Preprocessed frames [b, s, s, 3] -> CLIP embeddings [b, e]: `ImageTower`."""
    return network(ImageTower, config.image, dtype=dtype)


def refiner(config: ModelConfig, dtype=jnp.float32) -> Network:
    """The UNet of the refinement stage: `UNet3D`.

    Its autoencoder and text tower are `vae` and `text_tower` of `config.for_refinement`.
    """
    return network(UNet3D, config.refiner.unet, dtype=dtype)


# Layers that start at zero, by the ending of their path: every transformer and CAM's injectors start as the identity,
# temporal convolutions too; CAM's frames and a UNet's prediction start at zero; APM starts without anchor (eq. 6).
_ZERO = ('proj_out/kernel', 'convs/3/kernel', 'cam/encoder/conv_out/kernel', 'cam/conv_in/kernel',
         'decoder/conv_out/kernel', 'alpha')


def init(key, network: Network):
    """Fresh float32 parameters: kernels are normal with variance 1 / fan-in, biases 0, scales 1, embeddings 0.02.

    Each leaf depends on `key` and its own path only. Made on the host, so that nothing is compiled.
    """
    seed = [int(word) for word in np.ravel(jax.random.key_data(key))]

    def born(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        if name.endswith(('bias', *_ZERO)):
            return np.zeros(leaf.shape, np.float32)
        if name.endswith('scale'):
            return np.ones(leaf.shape, np.float32)
        std = np.prod(leaf.shape[:-1]) ** -0.5 if name.endswith('kernel') else 0.02
        rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
        return np.float32(std) * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree.map_with_path(born, network.abstract)


def copy_encoder(params):
    """params with CAM's feature extractor made equal to the UNet's encoder and middle block (how CAM starts)."""
    if 'extractor' not in params['cam']:  # Conc-Cond has none
        return params
    return {**params, 'cam': {**params['cam'], 'extractor': params['unet']['encoder']}}


def cast(params, dtype):
    """params with kernels and embeddings in `dtype`, so that sampling does not convert them at every step."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params)


def parameter_count(abstract) -> int:
    """Number of parameters in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract))
