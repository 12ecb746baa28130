"""Published files wherever they are: a file, a folder as downloaded, or a repository of the Hugging Face hub."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from st2v_jax.convert.nearby import hint
from st2v_jax.convert.recognise import RELEASED, Checkpoint, recognise, unwrapped
from st2v_jax.diffusion.schedule import DiffusionConfig
from st2v_jax.models.build import ModelConfig
from st2v_jax.storage.containers import read
from st2v_jax.storage.text import read_object
from st2v_jax.tokenizer import vocabulary

# diffusion_pytorch_model.fp16.safetensors, model-00001-of-00002.safetensors, pytorch_model.bin.index.json, ...
_WEIGHTS = re.compile(
    r'(?P<stem>.+?)(?P<half>\.fp16)?(?P<shard>-\d{5}-of-\d{5})?'
    r'\.(?P<container>safetensors|bin|ckpt|pth|pt)(?P<index>\.index(?:\.fp16)?\.json)?'
)
_MODEL_OF_A_FOLDER = ('model', 'pytorch_model', 'diffusion_pytorch_model')
_HUB = re.compile(r'\w[\w.-]*/\w[\w.-]*', re.ASCII)
_PATIENCE = 5  # seconds that the hub has to answer
_SCHEDULER = 'scheduler_config.json'
_TOKENS = ('tokenizer_config.json', 'special_tokens_map.json')  # which may name the padding token
BESIDE = ('model_index.json', 'config.json', _SCHEDULER, 'vocab.json', 'merges.txt', *_TOKENS)
DEPTHS = ('*', '*/*', '*/*/*')  # a folder of repositories, whose networks have folders of their own


@dataclass(frozen=True, eq=False)
class Published:
    """The published files in one place.

    Attributes:
      checkpoints: the networks, each with the file that it was found in.
      left_out: files of weights that hold no known network.
      pad: id of the padding token, None without a tokenizer.
      diffusion: the forward process, None without a scheduler.
      ours: the config and networks of a model that this package exported, or None.
    """

    checkpoints: tuple[tuple[Path, Checkpoint], ...]
    left_out: tuple[Path, ...]
    pad: int | None = None
    diffusion: DiffusionConfig | None = None
    ours: dict | None = None


@dataclass(frozen=True)
class Place:
    """What lies in one place, of which nothing has been read.

    Attributes:
      path: the file or folder; of a repository the folder that it was fetched into.
      files: of weights, those to read: see `weight_files`.
      others: all files of the folder; none where `path` is a file.
    """

    path: Path
    files: tuple[Path, ...]
    others: tuple[Path, ...]

    def named(self, name: str) -> Path | None:
        """The first file of that name in the folder."""
        return next((file for file in self.others if file.name == name), None)

    def ours(self) -> dict | None:
        """The config and networks of a model of ours that was exported, or None."""
        return _json(self.named('model_index.json')).get('_st2v_jax')

    def published(self, found: Iterable[tuple[Path, Checkpoint]], left_out: Iterable[Path]) -> Published:
        """What there is, with the networks that were found in `files` and the files that hold nothing we know."""
        found = sorted(found, key=lambda pair: -len(pair[1].networks))
        pad, diffusion = _pad(self.named('vocab.json')), _diffusion(self.named(_SCHEDULER))
        return Published(tuple(found), tuple(left_out), pad, diffusion, self.ours())


def look(source: str | Path) -> Place:
    """The files of a file, a folder and its subfolders, or, where neither is there, a repository of the hub.

    Raises FileNotFoundError where there is nothing.
    """
    path = Path(source)
    if not path.exists():
        if not is_repository(source):
            raise FileNotFoundError(f'there is no file or folder {source}{hint(path)}')
        path = _fetch(str(source))
    if not path.is_dir():
        return Place(path, (path,), ())
    names = [file.relative_to(path).as_posix() for depth in DEPTHS for file in sorted(path.glob(depth))]
    return Place(path, tuple(path / name for name in weight_files(names)), tuple(path / name for name in names))


def find(source: str | Path) -> Published:
    """What is in a file, in a folder and its subfolders, or else in a repository of the hub.

    Raises ValueError (UnsafeCheckpointError, ConversionError) or OSError for what cannot be read, and if there is no
    known network.
    """
    place = look(source)
    model, found, left_out = assumed(place.ours()), [], []
    for file in place.files:
        checkpoints = recognise(tensors_of(file), settings_of(file), model)
        found += [(file, checkpoint) for checkpoint in checkpoints]
        left_out += [] if checkpoints else [file]
    if not found:
        looked_into = f'looked into {len(place.files)} files of weights'
        raise ValueError(f'{source} holds none of the files we know ({looked_into}){hint(place.path)}')
    return place.published(found, left_out)


def tensors_of(file: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a file in any container, by the names that their networks gave them; see `read`, `unwrapped`."""
    return unwrapped(read(file))


def assumed(ours: dict | None) -> ModelConfig:
    """The config that says what neither a file nor the config.json beside it does; `ours` as `Place.ours` gives it."""
    return RELEASED if ours is None else ModelConfig.from_dict(ours['config'])


def settings_of(file: Path) -> dict:
    """The config.json beside a file of weights, {} without one."""
    return _json(file.with_name('config.json'))


def is_repository(source: str | Path) -> bool:
    """Whether this may be a repository of the hub: two words and a slash, of which the first is no folder here."""
    return _HUB.fullmatch(str(source)) is not None and not Path(source).parent.exists()


def is_weights(name: str) -> bool:
    """Whether a file of this name may hold weights, or is an index of such files."""
    return _WEIGHTS.fullmatch(name) is not None


def weight_files(names: Iterable[str]) -> list[str]:
    """The files of a folder that are read: one of each model, if it exists in several containers or precisions.

    Full precision is preferred to half, safetensors to pickles, and an index to the files that it names. A folder with
    a config.json of transformers or diffusers has one model; its files of other names are copies for other programs.
    """
    names = list(names)
    chosen = {}
    for name in names:
        path = PurePosixPath(name)
        match = _WEIGHTS.fullmatch(path.name)
        if match is None or match['shard']:
            continue
        single = str(path.with_name('config.json')) in names
        if single and match['stem'] not in _MODEL_OF_A_FOLDER:
            continue
        model = path.parent, '' if single else match['stem']
        rank = 'fp16' in path.name, match['container'] != 'safetensors', match['index'] is None, path.name
        chosen[model] = min(chosen.get(model, (rank, name)), (rank, name))
    return sorted(name for _, name in chosen.values())


def _fetch(repository):
    """A folder with those files of a repository that we read, from the hub or from an earlier download."""
    from huggingface_hub import model_info, snapshot_download  # imported here, because it takes a second
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        names = [file.rfilename for file in model_info(repository, timeout=_PATIENCE).siblings]
    except Exception as error:  # each version of the hub's client has its own errors for no network
        try:
            return Path(snapshot_download(repository, local_files_only=True))
        except Exception:
            if isinstance(error, GatedRepoError):
                raise FileNotFoundError(
                    f'{repository} is given out by the Hugging Face hub to those who accept its terms: do so on its '
                    'page, then `hf auth login`'
                ) from error
            what = 'has no such model' if isinstance(error, RepositoryNotFoundError) else 'cannot be reached'
            raise FileNotFoundError(
                f'there is no file or folder {repository}, and the Hugging Face hub {what} ({type(error).__name__})'
            ) from error
    wanted = weight_files(names)
    shards = [re.sub(r'\.(\w+)\.index.*', r'*-of-*.\1', name) for name in wanted if name.endswith('.json')]
    beside = [name for name in names if PurePosixPath(name).name in BESIDE]
    try:
        return Path(snapshot_download(repository, allow_patterns=[*wanted, *shards, *beside]))
    except Exception as error:
        reason = str(error).strip().partition('\n')[0] or type(error).__name__
        raise OSError(f'{repository} could not be fetched whole ({reason}): give the command again') from error


def _json(file):
    return read_object(file) if file is not None and file.is_file() else {}


def _pad(file):
    """The id of the padding token, from the tokenizer's files beside its vocab.json; None without them."""
    if file is None:
        return None
    ids = _json(file)
    if ids != vocabulary():
        raise ValueError(f'{file}: the vocabulary is not that of CLIP, which is the only one we have')
    tokens = [_json(file.with_name(name)).get('pad_token') for name in _TOKENS]
    token = next(
        (token for token in tokens if token is not None), '<|endoftext|>'
    )  # the default of transformers' CLIPTokenizer
    token = token.get('content') if isinstance(token, dict) else token
    if token not in ids:
        raise ValueError(f'{file}: the padding token {token!r} is not in it')
    return ids[token]


def _diffusion(scheduler):
    """The forward process that scheduler_config.json describes; None without it."""
    said, predictions = _json(scheduler), {'epsilon': 'epsilon', 'v_prediction': 'v'}
    if not said:
        return None
    prediction = said.get('prediction_type', 'epsilon')
    if said.get('beta_schedule') != 'scaled_linear' or prediction not in predictions:
        raise ValueError(
            f"{scheduler}: beta_schedule is 'scaled_linear' and prediction_type one of {(*predictions,)}, "
            f'not {said.get("beta_schedule")!r} and {prediction!r}'
        )
    process = [said[name] for name in ('num_train_timesteps', 'beta_start', 'beta_end')]
    return DiffusionConfig(*process, predictions[prediction], bool(said.get('rescale_betas_zero_snr', False)))
