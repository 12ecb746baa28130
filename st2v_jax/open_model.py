"""The one way to a model on disk, a folder in our format or published files: opened once, and read when asked.

    model = open_model('weights/st2v')      # or 'streaming_t2v.ckpt', 'damo-vilab/text-to-video-ms-1.7b', ...
    model.config, model.networks            # its config, and the networks that sampling needs
    model.params(('vae', 'text'))           # read now, and checked against the config

Nothing that a file holds is run.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format
from jax.typing import DTypeLike

from st2v_jax import devices, stopping
from st2v_jax.convert.assembly import Assembly, assemble
from st2v_jax.convert.engine import ConversionError
from st2v_jax.convert.nearby import hint
from st2v_jax.convert.sources import find, is_repository
from st2v_jax.errors import WeightsError
from st2v_jax.models.build import ModelConfig
from st2v_jax.storage.buckets import check, is_address
from st2v_jax.storage.untrusted import UnsafeCheckpointError
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.trees import unflatten
from st2v_jax.weights import folder as ours
from st2v_jax.weights import layout

SHIPPED = Path(__file__).parent / 'assets' / 'small'


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A model on disk, of which only names, shapes and settings have been read.

    Attributes:
      source: where it is, as passed to `open_model`.
      stored: a folder in our format, or the model that published files make together.
    """

    source: str | Path
    stored: ours.Folder | Assembly

    @property
    def config(self) -> ModelConfig:
        """The config of the whole model, including networks that are not held."""
        return self.stored.config

    @property
    def held(self) -> frozenset[str]:
        """The names of the networks whose parameters are there."""
        return self.stored.held

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that the streaming stage samples with; for a Video-LDM without CAM, those of a first chunk."""
        return layout.sampled(self.config, self.held)

    @property
    def refinement(self) -> tuple[str, ...]:
        """The networks of the refinement stage. Raises WeightsError if one of them is not held."""
        names = tuple(layout.refinement(self.config).values())
        missing = [f'{name}: missing' for name in names if name not in self.held]
        if missing:
            raise WeightsError('\n  '.join([f'the weights in {self.source} lack the refinement stage:', *missing]))
        return names

    def tokenizer(self, network: str = 'text') -> Tokenizer:
        """The tokenizer of a text tower; that of 'refiner_text' is OpenCLIP's: all of CLIP's tokens, padded with 0.

        network: 'text' or 'refiner_text'. Raises WeightsError unless the tower has a row for each token.
        """
        if network == 'text':
            tokenizer, rows = self.stored.tokenizer, self.config.text.vocab_size
        else:
            tokenizer, rows = Tokenizer(pad=0, unescape=True), self.config.refiner.text.vocab_size
        layout.check_tokenizer(tokenizer, rows, self.source)
        return tokenizer

    def params(
        self,
        names: Iterable[str] | None = None,
        place: Callable[[np.ndarray], Any] = lambda array: array.astype(np.float32),
    ) -> dict[str, Any]:
        """{network: nested dict of arrays}, read now.

        Args:
          names: of the networks; None is `networks`, and `layout.networks` lists all that a model may have.
          place: what is made of an array as it is on disk, mostly in 16 bits and mapped into memory. The default makes
            float32 numpy arrays; see `on_device`. It is called in several threads, and may raise ValueError.

        Raises:
          WeightsError: for a missing or unreadable file, for an array that `place` refuses and, all in one error, for
            every array that is missing, unknown to the config's model, or of another shape than there.
        """
        names = self.networks if names is None else tuple(names)
        missing = [name for name in names if name not in self.held]
        if missing and isinstance(self.stored, Assembly) and (where := hint(self.source)):
            raise WeightsError(f'{self.source} lacks {", ".join(missing)}{where}')
        try:
            stored = self.stored.arrays(names)
        except (ConversionError, UnsafeCheckpointError) as error:
            raise WeightsError(f'{self.source}: {error}') from error

        def placed(name, arrays):
            def one(path, array):
                stopping.check()
                try:
                    return place(array)
                except ValueError as error:
                    raise WeightsError(f'{self.source}: {name}/{path}: {error}') from error

            return dict(zip(arrays, pool.map(one, *zip(*arrays.items()))))

        with ThreadPoolExecutor() as pool:
            found = {name: placed(name, arrays) for name, arrays in stored.items()}
        return {name: unflatten(arrays) for name, arrays in found.items()}


def open_model(folder: str | Path | OpenModel | None = None) -> OpenModel:
    """Opens a model on disk; no parameter is read.

    Args:
      folder: a folder in our format, here or in a bucket, or whatever `convert` reads: a published file, a folder of
        them, a repository of the hub. None is the model that ships with the package. An open model is returned as it
        is.

    Raises:
      WeightsError: for what is not a model, and for a config with unknown or missing keys.
    """
    if isinstance(folder, OpenModel):
        return folder
    source = SHIPPED if folder is None else folder
    if is_address(source):
        return _in_a_bucket(source)
    if ours.is_ours(source):
        return OpenModel(source, ours.read(source))
    if not (Path(source).exists() or is_repository(source)):
        raise WeightsError(f'there is no folder of weights {source}{hint(source)}')
    try:
        return OpenModel(source, assemble([find(source)]))
    except (ValueError, OSError) as error:
        ours_too = f'{source}: there is no config.json of st2v_jax, and ' if Path(source).is_dir() else ''
        raise WeightsError(f'{ours_too}{error}') from error


def _in_a_bucket(address):
    try:
        check(address)
    except OSError as error:
        raise WeightsError(str(error)) from error
    if not ours.is_ours(address):
        raise WeightsError(
            f'{address} is not a folder of weights that st2v_jax wrote, the only ones read from a bucket'
        )
    return OpenModel(address, ours.read(address))


def load_weights(
    folder: str | Path | OpenModel | None = None, names: Iterable[str] | None = None
) -> tuple[ModelConfig, dict[str, Any]]:
    """Loads (ModelConfig, {network: nested dict of float32 arrays}) of a model on disk.

    Args:
      folder: as for `open_model`.
      names: of the networks; None is those that the streaming stage samples with.
    """
    model = open_model(folder)
    return model.config, model.params(names)


def on_device(dtype: DTypeLike, sharding: jax.sharding.Sharding | None = None) -> Callable[[np.ndarray], jax.Array]:
    """A `place` for `OpenModel.params`: arrays on the device, kernels and embeddings in `dtype`, others in float32.

    Kernels of convolutions lie as the device's convolutions read them, see `devices.kernel_layout`. It raises
    ValueError for numbers that `dtype` cannot hold.
    """

    def place(array):
        wanted = np.dtype(dtype if array.ndim > 1 else np.float32)
        if wanted == np.float32:
            return jax.device_put(np.asarray(array, wanted), sharding)
        # numpy casts to bfloat16 in one thread at a time; a device is much quicker.
        placed = jax.device_put(array, sharding).astype(wanted)
        if wanted == np.float16 and array.dtype != wanted and not jnp.isfinite(placed).all():
            raise ValueError(f'numbers beyond {np.finfo(wanted).max:.0f} do not fit float16; --dtype float32')
        lying = devices.kernel_layout(devices.current(), placed)
        return placed if lying is None else jax.device_put(placed, Format(lying, placed.sharding))

    return place
