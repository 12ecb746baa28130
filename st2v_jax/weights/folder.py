"""Our format: a folder of `config.json`, one `<network>.safetensors` for each network, and `words.json`.

Parameters are 16 bit on disk. Reading is strict: names and shapes must be those of the parameter tree that the config
describes, and what does not fit is reported all at once.
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
from st2v_jax.storage import safetensors
from st2v_jax.storage.atomic import write_bytes
from st2v_jax.storage.untrusted import UnsafeCheckpointError, read_json
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.trees import flatten
from st2v_jax.weights.layout import abstract, check_tokenizer, networks


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder of ours whose config has been read.

    Attributes:
      held: the names of the networks whose parameters are there.
    """

    path: Path
    config: ModelConfig
    held: frozenset[str]

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the text tower, as `words.json` describes it; all of CLIP's tokens without that file."""
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
        """{network: {path: array, mapped into memory as it lies on disk}} of the networks named in `only`.

        Raises WeightsError with every file that is missing or unreadable, and every array that the config's model
        lacks, needs, or has in another shape.
        """
        stored, complaints, trees = {}, [], abstract(self.config, only)
        for name, expected in trees.items():
            file = self.path / f'{name}.safetensors'
            try:
                stored[name] = safetensors.SafeTensors(file)
                complaints += _misfits(name, stored[name], expected)
            except FileNotFoundError:
                complaints.append(f'{file.name}: missing')
            except UnsafeCheckpointError as error:
                complaints.append(f'{file.name}: not a safetensors file or cut short ({error})')
        _raise(f'the weights in {self.path} do not fit its config.json', complaints)
        return {name: {path: stored[name][path] for path in flatten(tree)} for name, tree in trees.items()}


def read(path: str | Path) -> Folder:
    """Opens a folder of ours: its config is read, its parameters are not.

    Raises WeightsError where there is none, and for a config that is unreadable or has unknown or missing keys.
    """
    path = Path(path)
    if not path.is_dir():
        raise WeightsError(f'there is no folder of weights {path}')
    if not is_ours(path):
        raise WeightsError(f'{path}: there is no config.json of ours')
    file = path / 'config.json'
    settings = _read_json(file)
    try:
        return Folder(path, ModelConfig.from_dict(settings), held(path))
    except (ValueError, TypeError) as error:
        raise WeightsError(f'{file}: {error}') from error


def is_ours(path: str | Path) -> bool:
    """Whether there is a config.json in this folder that is not one of transformers or diffusers."""
    file = Path(path, 'config.json')
    return file.is_file() and not {'_class_name', 'model_type', 'architectures'} & {*_read_json(file)}


def held(path: str | Path) -> frozenset[str]:
    """The names of the networks whose parameters are in this folder, also where its config is not there yet."""
    return frozenset(file.stem for file in Path(path).glob('*.safetensors'))


def save(
    path: str | Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    dtype: np.typing.DTypeLike = np.float16,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Writes the networks of `params`, the config, and the rows, words and padding of the `tokenizer`.

    Each file is there whole or not at all, and takes the memory of one array. Networks of an earlier save that `params`
    does not name stay. Raises WeightsError, before anything is written, where a parameter does not fit the config or is
    not finite as `dtype`.
    """
    known = networks(config)
    complaints = [f'{name}: no such network, they are {", ".join(known)}' for name in sorted(set(params) - set(known))]
    flat = {name: flatten(params[name]) for name in known if name in params}
    for name, expected in abstract(config, flat).items():
        complaints += _misfits(name, flat[name], expected)
        bad = [parameter for parameter, array in flat[name].items() if not _finite(array, dtype)]
        complaints += [f'{name}/{parameter}: not finite as {np.dtype(dtype).name}' for parameter in bad]
    _raise(f'these parameters cannot be saved to {path}', complaints)
    folder = Path(path)
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
            complaints.append(f'{name}/{path}: shape {shapes[path]}, the config wants {shape}')
    return complaints


def _raise(heading, complaints):
    if complaints:
        raise WeightsError('\n  '.join([f'{heading}:', *complaints]))


def _read_json(file):
    try:
        return read_json(file.read_bytes())
    except (OSError, UnsafeCheckpointError) as error:
        raise WeightsError(f'{file} cannot be read: {error}') from error
