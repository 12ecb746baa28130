"""The door between modules and the program: configs become pure functions on plain parameter trees.

A network here is a function of (parameters, arrays); its parameters are a nested dict with string keys. Everything
else (optimizer, checkpoints, sharding, sampling) sees only these.
"""

import dataclasses
import functools
import types
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.clip import ImageTower, TextTower
from st2v_jax.models.config import ModelConfig
from st2v_jax.models.denoiser import StreamingDenoiser
from st2v_jax.models.unet3d import UNet3D
from st2v_jax.models.vae import Autoencoder


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A module as a pure function. `network` makes one for each module, config and dtype, so equal ones are identical.

    Attributes:
      graphdef: the module without its parameters.
      abstract: its parameters as a nested dict of jax.ShapeDtypeStruct with string keys.
    """

    graphdef: nnx.GraphDef
    abstract: dict[str, Any]

    def __call__(self, params: Mapping[str, Any], *args: Any, method: str = '__call__', **kwargs: Any) -> Any:
        """Calls `method` of the module with these parameters; pure, so it may be traced by jax.jit."""
        # Networks without parameters stay shapes, so that a Video-LDM runs without CAM and APM.
        module = nnx.merge(self.graphdef, _integer_keys({**self.abstract, **params}))
        return getattr(module, method)(*args, **kwargs)


def _integer_keys(tree):
    """Modules key their lists by integers; outside this file all keys are strings."""
    if not isinstance(tree, Mapping):
        return tree
    return {int(key) if key.isdigit() else key: _integer_keys(value) for key, value in tree.items()}


def _string_keys(tree):
    if not isinstance(tree, Mapping):
        return tree
    return {str(key): _string_keys(value) for key, value in tree.items()}


def network(module: Callable[..., nnx.Module], *args: Any, dtype: DTypeLike = jnp.float32) -> Network:
    """The Network of `module(*args)`, computing in `dtype`. Nothing is allocated; equal calls return the same one."""
    return _network(module, args, jnp.dtype(dtype))


@functools.cache
def _network(module, args, dtype):
    # Initialisers take a key and ignore it; making real keys would take most of the time.
    unborn = types.SimpleNamespace(params=lambda: None)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: module(*args, dtype=dtype, rngs=unborn)))
    return Network(graphdef, _string_keys(nnx.to_pure_dict(state)))


def denoiser(config: ModelConfig, dtype: DTypeLike = jnp.float32) -> Network:
    """UNet, CAM and APM: `StreamingDenoiser`, with parameters under 'unet', 'cam' and 'apm'."""
    return network(StreamingDenoiser, config.backbone, config.cam, config.apm, dtype=dtype)


def vae(config: ModelConfig, dtype: DTypeLike = jnp.float32) -> Network:
    """Frame-wise autoencoder with methods 'encode' and 'decode': `Autoencoder`."""
    return network(Autoencoder, config.vae, dtype=dtype)


def text_tower(config: ModelConfig, dtype: DTypeLike = jnp.float32) -> Network:
    """Token ids [b, 77] -> text tokens [b, 77, c]: `TextTower`."""
    return network(TextTower, config.text, dtype=dtype)


def image_tower(config: ModelConfig, dtype: DTypeLike = jnp.float32) -> Network:
    """Preprocessed frames [b, s, s, 3] -> CLIP embeddings [b, e]: `ImageTower`."""
    return network(ImageTower, config.image, dtype=dtype)


def refiner(config: ModelConfig, dtype: DTypeLike = jnp.float32) -> Network:
    """The UNet of the refinement stage: `UNet3D`.

    Its autoencoder and text tower are `vae` and `text_tower` of `config.for_refinement`.
    """
    return network(UNet3D, config.refiner.unet, dtype=dtype)


# Layers that start at zero, by the end of their path. So transformers, temporal convolutions and CAM's injectors start
# as the identity, CAM's encoded frames and the UNet's prediction as zero, and APM without the anchor (eq. 6).
_ZERO = (
    'proj_out/kernel',
    '_code/kernel',
    'convs/3/kernel',
    'cam/encoder/conv_out/kernel',
    'cam/conv_in/kernel',
    'decoder/conv_out/kernel',
    'alpha',
)


def init(key: jax.Array, network: Network) -> dict[str, Any]:
    """Fresh float32 parameters, which depend on `key` and their own path alone.

    Kernels are normal with variance 1 / fan-in, embeddings with standard deviation 0.02; biases are 0 and scales 1.
    They are made on the host, so that nothing is compiled.
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


def copy_encoder(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with a copy of the UNet's encoder and middle block as CAM's feature extractor, as CAM starts."""
    if 'extractor' not in params['cam']:  # Conc-Cond has none
        return params
    return {**params, 'cam': {**params['cam'], 'extractor': params['unet']['encoder']}}


def cast(params: dict[str, Any], dtype: DTypeLike) -> dict[str, Any]:
    """The parameters with kernels and embeddings in `dtype`, so that sampling does not convert them at every step."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params)


def with_biases(params: Any, dtype: DTypeLike) -> Any:
    """The parameters with the biases of linear layers and convolutions in `dtype`, which those layers add them in.

    A step would convert each of them, and on a GPU a conversion costs the start of a kernel. Norms, whose biases have
    no kernel beside them, keep theirs in float32.
    """
    if not isinstance(params, dict):
        return params
    found = {name: with_biases(value, dtype) for name, value in params.items()}
    return {**found, 'bias': found['bias'].astype(dtype)} if {'kernel', 'bias'} <= found.keys() else found


def parameter_count(abstract: Any) -> int:
    """Number of parameters in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract))
