"""Trained models on disk: one folder = `config.json`, one `<network>.safetensors` per network, `words.json`.

Parameters are 16 bit on disk and float32 in memory. Loading is strict: names and shapes must be those of the abstract
parameter tree that the config describes, and what does not fit is reported all at once.
"""

import json
import os
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from st2v_jax.convert.engine import flatten, unflatten
from st2v_jax.models import build
from st2v_jax.tokenizer import Tokenizer

NETWORKS = ('vae', 'text', 'image', 'unet', 'cam', 'apm')  # of the streaming stage
SHIPPED = Path(__file__).parent / 'assets' / 'small'


class WeightsError(ValueError):
    """A folder that is not a model, or whose weights do not fit its config."""


def refinement(config):
    """{part: network} of the refinement stage: 'refiner', 'vae' and 'text', the last two of its own or streaming's."""
    own = {'vae': config.refiner.vae, 'text': config.refiner.text}
    return {'refiner': 'refiner'} | {part: part if size is None else f'refiner_{part}' for part, size in own.items()}


def networks(config):
    """The names of all networks of a model: NETWORKS, and what only its refinement stage has."""
    return (*NETWORKS, *(name for name in refinement(config).values() if name not in NETWORKS))


def bundled(only=NETWORKS):
    """The model that ships with the package, as `load` returns it."""
    return load(SHIPPED, only)


def load(folder, only=NETWORKS):
    """folder -> (ModelConfig, {network: nested dict of float32 numpy arrays}) for the networks named in `only`.

    Without it these are what the streaming stage needs; `networks` lists all that a model may have.
    Raises WeightsError for a missing or unreadable file, a config key that is unknown or missing, and, all complaints
    in one error, for every array that the config's model lacks, needs, or holds in another shape.
    """
    folder, only = Path(folder), tuple(only)
    config = load_config(folder)
    complaints, params = [], {}
    for name, expected in abstract(config, only).items():
        arrays, missed = _read(folder / f'{name}.safetensors', flatten(expected))
        complaints += missed
        params[name] = unflatten(arrays)
    _raise(f'the weights in {folder} do not fit its config.json', complaints)
    return config, params


def load_config(folder):
    """The ModelConfig of a folder, without reading its parameters."""
    if not Path(folder).is_dir():
        raise WeightsError(f'there is no folder of weights {folder}')
    settings = _read_json(Path(folder, 'config.json'))
    if not isinstance(settings, dict):
        raise WeightsError(f'{folder}/config.json must hold an object of settings')
    try:
        return build.ModelConfig.from_dict(settings)
    except (ValueError, TypeError) as error:
        raise WeightsError(f'{folder}/config.json: {error}') from error


def load_tokenizer(folder=SHIPPED, network='text'):
    """The Tokenizer of a folder's text tower as `words.json` describes it; all of CLIP's tokens without that file.

    network: 'text', or 'refiner_text', which is OpenCLIP's tower and reads all of CLIP's tokens, padded with 0.
    """
    config = load_config(folder)
    vocab_size, tokenizer = config.text.vocab_size, Tokenizer()
    if network == 'refiner_text':
        vocab_size, tokenizer = config.refiner.text.vocab_size, Tokenizer(pad=0)
    elif Path(folder, 'words.json').is_file():
        listed = _read_json(Path(folder, 'words.json'))
        try:
            tokenizer = Tokenizer(listed['rows'], listed['words'], pad=listed['pad'])
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f'{folder}/words.json: {error!r}') from error
    if tokenizer.size != vocab_size:
        raise WeightsError(f'{folder}: the text tower has {vocab_size} rows, its tokenizer {tokenizer.size}')
    return tokenizer


def save(folder, config, params, dtype=np.float16, tokenizer=None):
    """Write the networks of `params`, the config, and the rows, words and padding of the `tokenizer`.

    Every file is written beside its place and then renamed, so that a reader finds the old one or the new one. Networks
    of an earlier save that `params` does not name stay. Raises WeightsError, before anything is written, when a
    parameter does not fit the config or is not finite as `dtype`.
    """
    known = networks(config)
    complaints = [f'{name}: no such network, they are {", ".join(known)}' for name in sorted(set(params) - set(known))]
    blobs = {}
    for name, expected in abstract(config, [name for name in known if name in params]).items():
        arrays = {path: np.asarray(array) for path, array in flatten(params[name]).items()}
        complaints += _compare(name, {path: array.shape for path, array in arrays.items()}, flatten(expected))
        with np.errstate(over='ignore'):
            packed = {path: np.ascontiguousarray(array, dtype).reshape(array.shape) for path, array in arrays.items()}
        bad = [path for path, array in packed.items() if not np.isfinite(array.astype(np.float32)).all()]
        complaints += [f'{name}/{path}: not finite as {np.dtype(dtype).name}' for path in bad]
        blobs[f'{name}.safetensors'] = to_safetensors(packed)
    _raise(f'these parameters cannot be saved to {folder}', complaints)

    if tokenizer is not None:
        listed = {'words': tokenizer.words, 'rows': tokenizer.rows, 'pad': tokenizer.pad}
        blobs['words.json'] = json.dumps(listed).encode()
    blobs['config.json'] = (json.dumps(config.to_dict(), indent=2) + '\n').encode()
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file_name, blob in blobs.items():
        place = Path(folder, file_name)
        beside = place.with_name(f'.{file_name}.{os.getpid()}')
        beside.write_bytes(blob)
        os.replace(beside, place)


def abstract(config, only=NETWORKS):
    """{network: nested dict of shapes} of the model that `config` describes, for the networks named in `only`."""
    known = networks(config)
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise ValueError(f'no such network: {", ".join(unknown)}; they are {", ".join(known)}')
    own = config.for_refinement
    doors = {
        'vae': partial(build.vae, config),
        'text': partial(build.text_tower, config),
        'image': partial(build.image_tower, config),
        'refiner': partial(build.refiner, config),
        'refiner_vae': partial(build.vae, own),
        'refiner_text': partial(build.text_tower, own),
    }
    trees = {name: doors[name](jnp.float32).abstract for name in only if name in doors}
    if set(only) - set(doors):
        trees |= build.denoiser(config, jnp.float32).abstract
    return {name: trees[name] for name in only}


def _read(file, expected):
    """-> ({path: float32 array}, complaints) of one safetensors file against its flat abstract tree."""
    if not file.is_file():
        return {}, [f'{file.name}: missing']
    try:
        with safe_open(file, framework='numpy') as stored:
            shapes = {path: tuple(stored.get_slice(path).get_shape()) for path in stored.keys()}  # noqa: SIM118 (not iterable)
            complaints = _compare(file.stem, shapes, expected)
            if complaints:
                return {}, complaints
            return {path: stored.get_tensor(path).astype(np.float32) for path in expected}, []
    except SafetensorError as error:
        return {}, [f'{file.name}: not a safetensors file or cut short ({error})']


def _compare(name, shapes, expected):
    complaints = [f'{name}/{path}: the model has no such parameter' for path in sorted(set(shapes) - set(expected))]
    for path, leaf in expected.items():
        if path not in shapes:
            complaints.append(f'{name}/{path}: missing')
        elif tuple(shapes[path]) != tuple(leaf.shape):
            complaints.append(f'{name}/{path}: shape {tuple(shapes[path])}, the config wants {tuple(leaf.shape)}')
    return complaints


def _raise(heading, complaints):
    if complaints:
        raise WeightsError('\n  '.join([f'{heading}:', *complaints]))


def _read_json(file):
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise WeightsError(f'{file} is missing') from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f'{file} cannot be read: {error}') from error
