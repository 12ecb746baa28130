"""Our format: a folder of `config.json`, one `<network>.safetensors` for each network, and `words.json`.

Parameters have 16 bits on disk. Reading is strict: names and shapes must be those of the parameter tree that the config
describes, and everything that does not fit is reported at once.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.errors import WeightsError
from st2v_jax.models.build import ModelConfig
from st2v_jax.storage import containers, safetensors
from st2v_jax.storage.atomic import write_bytes
from st2v_jax.storage.buckets import located
from st2v_jax.storage.text import read_object
from st2v_jax.storage.untrusted import UnsafeCheckpointError
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.trees import flatten
from st2v_jax.weights.layout import abstract, check_tokenizer, networks


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder in our format whose config has been read.

    Attributes:
      path: of the folder.
      config: of the whole model.
      held: the names of the networks whose parameters are there.
    """

    path: Path
    config: ModelConfig
    held: frozenset[str]

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The text tower's tokenizer, as `words.json` describes it; without that file, all of CLIP's tokens."""
        words, tokenizer = self.path / 'words.json', Tokenizer()
        if words.is_file():
            listed = _read_json(words)
            try:
                tokenizer = Tokenizer.from_dict(listed)
            except (KeyError, TypeError, ValueError) as error:
                raise WeightsError(f'{words}: {error!r}') from error
        check_tokenizer(tokenizer, self.config.text.vocab_size, self.path)
        return tokenizer

    def arrays(self, only: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
        """{network: {path: array}} of the networks named in `only`; the arrays are mapped into memory, as on disk.

        Raises WeightsError with every file that is missing or unreadable, and every array that is missing, unknown to
        the config's model, or of another shape than there.
        """
        stored, complaints, trees = {}, [], abstract(self.config, only)
        for name, expected in trees.items():
            file = self.path / f'{name}.safetensors'
            try:
                stored[name] = containers.read(file)
                complaints += _misfits(name, stored[name], expected)
            except FileNotFoundError:
                complaints.append(f'{file.name}: missing')
            except UnsafeCheckpointError as error:
                complaints.append(str(error).removeprefix(f'{self.path}/'))
        _raise(f'the weights in {self.path} do not fit its config.json', complaints)
        return {name: {path: stored[name][path] for path in flatten(tree)} for name, tree in trees.items()}


def read(path: str | Path) -> Folder:
    """Opens a folder in our format: its config is read, its parameters are not.

    Raises WeightsError for any other folder, and for a config that is unreadable or has unknown or missing keys.
    """
    path = located(path)
    if not path.is_dir():
        raise WeightsError(f'there is no folder of weights {path}')
    if not is_ours(path):
        raise WeightsError(f'{path}: there is no config.json of st2v_jax')
    file = path / 'config.json'
    settings = _read_json(file)
    try:
        return Folder(path, ModelConfig.from_dict(settings), held(path))
    except (ValueError, TypeError) as error:
        raise WeightsError(f'{file}: {error}') from error


def is_ours(path: str | Path) -> bool:
    """Whether this folder has a config.json that is not one of transformers or diffusers."""
    file = located(path) / 'config.json'
    return file.is_file() and not {'_class_name', 'model_type', 'architectures'} & {*_read_json(file)}


def held(path: str | Path) -> frozenset[str]:
    """The names of the networks whose parameters are in this folder, which may have no config yet."""
    return frozenset(file.stem for file in located(path).glob('*.safetensors'))


def save(
    path: str | Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    dtype: np.typing.DTypeLike = np.float16,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Writes the networks of `params`, the config, and the rows, words and padding of the `tokenizer`.

    Each file appears whole or not at all, and writing needs the memory of one array. Networks of an earlier save that
    are not in `params` stay.

    Args:
      path: of the folder, which is made if it is missing.
      config: of the whole model.
      params: {network: nested dict of arrays}.
      dtype: of the arrays on disk.
      tokenizer: of the text tower; None writes none.

    Raises:
      WeightsError: before anything is written, if a parameter does not fit the config or is not finite as `dtype`.
    """
    known = networks(config)
    complaints = [
        f'{name}: no such network, the model has {", ".join(known)}' for name in sorted(set(params) - set(known))
    ]
    flat = {name: flatten(params[name]) for name in known if name in params}
    for name, expected in abstract(config, flat).items():
        complaints += _misfits(name, flat[name], expected)
        bad = [parameter for parameter, array in flat[name].items() if not _finite(array, dtype)]
        complaints += [f'{name}/{parameter}: not finite as {np.dtype(dtype).name}' for parameter in bad]
    _raise(f'these parameters cannot be saved to {path}', complaints)
    folder = located(path)
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in flat.items():
        safetensors.write(folder / f'{name}.safetensors', arrays, dtype)
    if tokenizer is not None:
        write_bytes(folder / 'words.json', json.dumps(tokenizer.to_dict()).encode())
    write_bytes(folder / 'config.json', (json.dumps(config.to_dict(), indent=2) + '\n').encode())


def _finite(array, dtype):
    with np.errstate(over='ignore'):
        return bool(np.isfinite(np.asarray(array, dtype)).all())


def _misfits(name, arrays, expected):
    """What is wrong with {path: array} of a network whose tree of shapes is `expected`, one line each."""
    shapes, wanted = ({path: tuple(leaf.shape) for path, leaf in tree.items()} for tree in (arrays, flatten(expected)))
    complaints = [f'{name}/{path}: the model has no such parameter' for path in sorted(set(shapes) - set(wanted))]
    for path, shape in wanted.items():
        if path not in shapes:
            complaints.append(f'{name}/{path}: missing')
        elif shapes[path] != shape:
            complaints.append(f'{name}/{path}: shape {shapes[path]}, the config needs {shape}')
    return complaints


def _raise(heading, complaints):
    if complaints:
        raise WeightsError('\n  '.join([f'{heading}:', *complaints]))


def _read_json(file):
    try:
        return read_object(file)
    except OSError as error:
        raise WeightsError(f'{file} cannot be read: {error}') from error
    except UnsafeCheckpointError as error:
        raise WeightsError(str(error)) from error
