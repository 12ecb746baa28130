"""Trained models on disk: one folder = `config.json`, one `<network>.safetensors` per network, `words.json`.

Parameters are 16 bit on disk and float32 in memory. Loading is strict: names and shapes must be those of the abstract
parameter tree that the config describes, and what does not fit is reported all at once.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save as to_safetensors

from st2v_jax.convert.assembly import assemble
from st2v_jax.convert.engine import flatten, unflatten
from st2v_jax.convert.sources import find, is_repository
from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.models.unet3d import UNet3D
from st2v_jax.storage.pickle_machine import UnsafeCheckpointError
from st2v_jax.storage.safetensors_reader import SafeTensors
from st2v_jax.tokenizer import Tokenizer

NETWORKS = ('vae', 'text', 'image', 'unet', 'cam', 'apm')  # of the streaming stage
LONG_TERM = ('image', 'apm')  # what the anchor goes through
MEMORIES = ('cam', *LONG_TERM)  # what later chunks need and the first does not
SHIPPED = Path(__file__).parents[1] / 'assets' / 'small'


def refinement(config):
    """{part: network} of the refinement stage: 'refiner', 'vae' and 'text', the last two of its own or streaming's."""
    own = {'vae': config.refiner.vae, 'text': config.refiner.text}
    return {'refiner': 'refiner'} | {part: part if size is None else f'refiner_{part}' for part, size in own.items()}


def networks(config):
    """The names of all networks of a model: `streaming`'s, and what only its refinement stage has."""
    own = streaming(config)
    return (*own, *(name for name in refinement(config).values() if name not in own))


def streaming(config):
    """The names of the networks of the streaming stage.

    NETWORKS, without those of a long-term memory where there is none, and 'initial' where the first chunk has its own.
    """
    names = tuple(name for name in NETWORKS if config.apm is not None or name not in LONG_TERM)
    return (*names, 'initial') if config.initial else names


def bundled(only=None):
    """The model that ships with the package, as `load` returns it."""
    return load(SHIPPED, only)


def load(folder, only=None, place=lambda array: array.astype(np.float32)):
    """folder -> (ModelConfig, {network: nested dict of arrays}) for the networks named in `only`.

    folder: one of ours, or whatever st2v convert reads: a published file, a folder of them, a repository of the hub.
    only: without it what the streaming stage needs, or, of a Video-LDM that has no CAM, what draws a first chunk;
        `networks` lists all that a model may have.
    place: what is made of an array as it lies on disk, mostly in 16 bits and mapped into memory: float32 numpy arrays,
        or `on_device(...)`. Several at a time.
    Raises WeightsError for a missing or unreadable file, a config key that is unknown or missing, and, all complaints
    in one error, for every array that the config's model lacks, needs, or holds in another shape.
    """
    theirs, config = _open(folder)
    only = _sampled(folder, theirs, config) if only is None else tuple(only)
    stored = _ours(Path(folder), config, only) if theirs is None else _theirs(folder, theirs, only)
    with ThreadPoolExecutor() as pool:
        placed = {name: dict(zip(arrays, pool.map(place, arrays.values()))) for name, arrays in stored.items()}
    return config, {name: unflatten(arrays) for name, arrays in placed.items()}


def describe(folder):
    """(ModelConfig, names of the networks) that `load` gives without `only`, without reading any parameters."""
    theirs, config = _open(folder)
    return config, _sampled(folder, theirs, config)


def describe_refinement(folder):
    """(ModelConfig, names of the networks of the refinement stage), without reading any parameters.

    Raises WeightsError for a folder that lacks one of them.
    """
    theirs, config = _open(folder)
    names, held = tuple(refinement(config).values()), _held(folder, theirs)
    missing = [f'{name}: missing' for name in names if name not in held]
    _raise(f'the weights in {folder} lack the refinement stage', missing)
    return config, names


def on_device(dtype, sharding=None):
    """A `place` for `load`: arrays on the device, kernels and embeddings in `dtype`, the others in float32."""
    def place(array):
        wanted = np.dtype(dtype if array.ndim > 1 else np.float32)
        if wanted == np.float32:
            return jax.device_put(np.asarray(array, wanted), sharding)
        # numpy casts to bfloat16 in one thread at a time; a device does it in no time.
        return jax.device_put(array, sharding).astype(wanted)

    return place


def load_config(folder):
    """The ModelConfig of what `load` takes, without reading its parameters."""
    return _open(folder)[1]


def load_tokenizer(folder=SHIPPED, network='text'):
    """The Tokenizer of a folder's text tower as `words.json` describes it; all of CLIP's tokens without that file.

    network: 'text', or 'refiner_text', which is OpenCLIP's tower and reads all of CLIP's tokens, padded with 0.
    """
    (theirs, config), words = _open(folder), Path(folder, 'words.json')
    vocab_size, tokenizer = config.text.vocab_size, Tokenizer()
    if network == 'refiner_text':
        vocab_size, tokenizer = config.refiner.text.vocab_size, Tokenizer(pad=0, unescape=True)
    elif theirs is not None:
        tokenizer = Tokenizer(**theirs.tokenizer)
    elif words.is_file():
        listed = _read_json(words)
        try:
            tokenizer = Tokenizer(listed['rows'], listed['words'], pad=listed['pad'])
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f'{words}: {error!r}') from error
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


def abstract(config, only):
    """{network: nested dict of shapes} of the model that `config` describes, for the networks named in `only`."""
    known = networks(config)
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise ValueError(f'no such network: {", ".join(unknown)}; they are {", ".join(known)}')
    own = config.for_refinement
    unet = partial(build.network, UNet3D, config.unet)
    doors = {
        'unet': unet,
        'initial': unet,
        'vae': partial(build.vae, config),
        'text': partial(build.text_tower, config),
        'image': partial(build.image_tower, config),
        'refiner': partial(build.refiner, config),
        'refiner_vae': partial(build.vae, own),
        'refiner_text': partial(build.text_tower, own),
    }
    trees = {name: doors[name](dtype=jnp.float32).abstract for name in only if name in doors}
    if set(only) - set(doors):
        trees = build.denoiser(config, jnp.float32).abstract | trees
    return {name: trees[name] for name in only}


def _open(folder):
    """(the Assembly of published files or None for a folder of ours, ModelConfig)."""
    theirs = _published(folder)
    if theirs is not None:
        return theirs, theirs.config
    if not Path(folder).is_dir():
        raise WeightsError(f'there is no folder of weights {folder}')
    settings = _read_json(Path(folder, 'config.json'))
    if not isinstance(settings, dict):
        raise WeightsError(f'{folder}/config.json must hold an object of settings')
    try:
        return None, build.ModelConfig.from_dict(settings)
    except (ValueError, TypeError) as error:
        raise WeightsError(f'{folder}/config.json: {error}') from error


def _published(folder):
    """The Assembly of published files, None for a folder of ours."""
    settings = Path(folder, 'config.json')
    if settings.is_file():
        said = _read_json(settings)
        if not isinstance(said, dict) or not {'_class_name', 'model_type', 'architectures'} & {*said}:
            return None
    elif not Path(folder).exists() and not is_repository(folder):
        return None
    try:
        return assemble([find(folder)])
    except (ValueError, OSError) as error:
        raise WeightsError(f'{folder}: there is no config.json of ours, and {error}') from error


def _held(folder, theirs):
    """The names of the networks whose parameters are there."""
    return {file.stem for file in Path(folder).glob('*.safetensors')} if theirs is None else {*theirs.files}


def _sampled(folder, theirs, config):
    held = _held(folder, theirs)
    return tuple(name for name in streaming(config) if name not in MEMORIES or held & {'cam', 'apm'})


def _ours(folder, config, only):
    """{network: {path: array on disk}} of a folder of ours."""
    stored, complaints, trees = {}, [], abstract(config, only)
    for name, expected in trees.items():
        file = folder / f'{name}.safetensors'
        try:
            stored[name] = dict(SafeTensors(file))
            shapes = {path: array.shape for path, array in stored[name].items()}
            complaints += _compare(name, shapes, flatten(expected))
        except FileNotFoundError:
            complaints.append(f'{file.name}: missing')
        except UnsafeCheckpointError as error:
            complaints.append(f'{file.name}: not a safetensors file or cut short ({error})')
    _raise(f'the weights in {folder} do not fit its config.json', complaints)
    return {name: {path: stored[name][path] for path in flatten(tree)} for name, tree in trees.items()}


def _theirs(folder, assembly, only):
    """The same of published files."""
    lacking = [f'{name}: in none of the files' for name in only if name not in assembly.files]
    _raise(f'{folder} does not hold all of a model', lacking)
    try:
        return assembly.arrays(abstract, only)
    except ValueError as error:
        raise WeightsError(f'{folder}: {error}') from error


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
