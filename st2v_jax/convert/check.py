"""What published files hold, and all that keeps them from becoming a streaming model: a report, and nothing written.

Conversion ends at the first file that is bad. Here every file is looked into, whatever is wrong with the others: it is
read once, one tensor at a time, and nothing in it is run. The report names files as the user knows them, without the
folders that they lie in, so that it can be sent to others.
"""

import contextlib
import datetime
import hashlib
import importlib.metadata
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from st2v_jax import __version__
from st2v_jax.convert.assembly import assemble, merged
from st2v_jax.convert.engine import Fit, compare, names_of
from st2v_jax.convert.nearby import hint
from st2v_jax.convert.numbers import Numbers, numbers
from st2v_jax.convert.recognise import RELEASED, Checkpoint, checkpoint, kinds
from st2v_jax.convert.sources import BESIDE, Place, assumed, is_weights, look, settings_of, tensors_of
from st2v_jax.storage.untrusted import UnsafeCheckpointError, read_json
from st2v_jax.weights.layout import abstract, streaming

HEAD = 1 << 20  # bytes of a file that its digest is of
EXAMPLES = 20  # names that are shown of a file that holds nothing known
# What is raised by sizes that no model can have: negative, zero, no multiple of the number of groups
IMPOSSIBLE = (ValueError, TypeError, ArithmeticError)


@dataclass
class Part:
    """A file on disk: its name, size, and the SHA-256 of its first `HEAD` bytes."""

    name: str
    bytes: int
    sha256: str


@dataclass
class File:
    """A file of weights that was looked into.

    Attributes:
      number: by which networks refer to it, from 1.
      parts: the file, and those that it names where it is an index.
      kinds: what it was recognised as; [] where it holds nothing known.
      tensors, dtypes: how many there are, and how many of each type.
      troubles: why it, or a network in it, cannot be read.
      damaged: tensors that are not what was written, by their checksums.
      examples: names of tensors in a file that holds nothing known.
    """

    number: int
    parts: list[Part]
    kinds: list[str] = field(default_factory=list)
    tensors: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the file itself."""
        return self.parts[0].name


@dataclass
class Network:
    """A network in a file.

    Attributes:
      name: of ours; that of the kind where the file's sizes make no networks.
      used: whether conversion takes it from here; None where the files make no model together.
      parameters: how many numbers of the file belong to it.
      dtypes: type -> number of tensors.
      missing: tensors, by their published names.
      unknown, shapes: tensor -> what is wrong with it, or with its shape. One that no table knows stands with the
        network whose names begin most like its own.
      nan, infinite, beyond_float16: tensor -> how many of its numbers are.
      statistics: see `Numbers.summary`.
    """

    name: str
    file: int
    kind: str
    used: bool | None = None
    parameters: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)
    nan: dict[str, int] = field(default_factory=dict)
    infinite: dict[str, int] = field(default_factory=dict)
    beyond_float16: dict[str, int] = field(default_factory=dict)
    statistics: dict[str, float | int | None] = field(default_factory=dict)

    @property
    def not_finite(self) -> set[str]:
        """The tensors that hold a NaN or an infinity."""
        return {*self.nan, *self.infinite}


@dataclass
class Report:
    """What was found; `dataclasses.asdict` makes JSON values of it.

    Attributes:
      versions: of the programs that read the files.
      sources: what was asked for.
      settings: files that are read for sizes, schedule and tokenizer.
      not_read: other files of weights, mostly copies of those that are read.
      absent: networks of the streaming stage that are in no file.
      troubles: what is wrong with a source.
      disagreements: what keeps files that are right by themselves from being one model.
    """

    date: str
    versions: dict[str, str]
    sources: list[str]
    files: list[File] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)

    def problems(self) -> dict[tuple[str, str], int]:
        """{(what, its state): how many}, of all that keeps the files from being a streaming model."""
        found = {
            ('file', 'unusable'): sum(bool(file.troubles) for file in self.files),
            ('source', 'unusable'): len(self.troubles),
            ('disagreement', 'between files'): len(self.disagreements),
            ('network', 'missing'): len(self.absent),
            ('tensor', 'damaged'): sum(len(file.damaged) for file in self.files),
            ('tensor', 'missing'): sum(len(network.missing) for network in self.networks),
            ('tensor', 'unknown'): sum(len(network.unknown) for network in self.networks),
            ('tensor', 'of a wrong shape'): sum(len(network.shapes) for network in self.networks),
            ('tensor', 'not finite'): sum(len(network.not_finite) for network in self.networks),
        }
        return {what: count for what, count in found.items() if count}

    def makes_a_model(self) -> bool:
        """Whether all networks of the streaming stage are there and fit; their numbers may still not be finite."""
        return all(state == 'not finite' for _, state in self.problems())


def check(sources: Sequence[str | Path], on_read: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """The Report on files, folders and repositories of the hub, see `sources.look`.

    on_read: receives how many bytes have been read, and of how many.
    Raises FileNotFoundError for a source that is not there; everything else that is wrong stands in the report.
    """
    places = [_Source.at(source) for source in sources]
    report = Report(datetime.date.today().isoformat(), versions(), [source.name for source in places])
    total = sum(part.stat().st_size for source in places for path in source.place.files for part in _parts(path))
    done, published, numbers_of = 0, [], {}

    def on_tensor(size):
        nonlocal done
        done = min(total, done + size)
        on_read(done, total)

    for source in places:
        place, found, looked_into = source.place, [], []
        with source.telling(report):
            model = RELEASED
            model = assumed(place.ours())
        for path in place.files:
            numbers_of[path] = len(report.files) + 1
            file, checkpoints, networks = _look_into(path, source, numbers_of[path], model, on_tensor)
            looked_into.append(file)
            found += [(path, one) for one in checkpoints]
            report.files.append(file)
            report.networks += networks
        if not any(file.kinds or file.troubles for file in looked_into):
            report.troubles.append(
                f'{source.name} holds none of the files we know{source.hidden(hint(source.place.path))}'
            )
        parts = {part for path in place.files for part in _parts(path)}
        report.settings += [source.name_of(path) for path in place.others if path.name in BESIDE]
        others = [path for path in place.others if is_weights(path.name) and path.is_file() and path not in parts]
        report.not_read += map(source.name_of, others)
        with source.telling(report):
            published.append(place.published(found, ()))
    held = {network.name for network in report.networks}
    report.absent = [name for name in streaming(RELEASED) if name not in held]
    try:
        _put_together(report, published, numbers_of)
    except ValueError as error:
        lines = getattr(error, 'complaints', [str(error)])
        for path, number in numbers_of.items():
            lines = [line.replace(str(path), report.files[number - 1].name) for line in lines]
        report.disagreements += lines
    return report


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    of = {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax', 'numpy')}
    return {'st2v_jax': __version__, 'python': platform.python_version(), **of, 'platform': platform.platform()}


@dataclass(frozen=True)
class _Source:
    """A place, and what it is called in the report: without the folders that it lies in."""

    name: str
    place: Place

    @classmethod
    def at(cls, source):
        path = Path(source)
        if path.exists():
            return cls(path.resolve().name, look(path.absolute()))
        return cls(str(source), look(source))

    def name_of(self, path):
        if not self.place.path.is_dir():
            return path.name  # the file, or one that lies beside an index
        return f'{self.name}/{path.relative_to(self.place.path).as_posix()}'

    def words(self, error):
        """What an error says, with our names in the place of paths."""
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            text = ': '.join(filter(None, (error.filename, error.strerror)))
        return self.hidden(text)

    def hidden(self, text):
        """The text without the folders that the place lies in."""
        above = self.place.path.parent
        text = text.replace(str(self.place.path), self.name).replace(f'{above}/', '')
        return text.replace(str(above), above.name) if above.name else text

    @contextlib.contextmanager
    def telling(self, report):
        """What goes wrong goes into the report."""
        try:
            yield
        except (ValueError, TypeError, OSError) as error:
            report.troubles.append(self.words(error))


def _parts(path):
    """The file, and the files that an index names and that are there."""
    if not path.name.endswith('.json'):
        return [path]
    try:
        listed = read_json(path.read_bytes()).get('weight_map')
    except (UnsafeCheckpointError, OSError):
        return [path]
    names = dict.fromkeys(Path(name).name for name in listed.values()) if isinstance(listed, dict) else ()
    return [path, *(path.with_name(name) for name in names if path.with_name(name).is_file())]


def _head(path):
    with open(path, 'rb') as stream:
        return stream.read(HEAD)


def _look_into(path, source, number, model, on_tensor):
    """(File, its checkpoints with shapes in the place of tensors, their Networks)."""
    heads = {part: _head(part) for part in _parts(path)}
    digests = {part: hashlib.sha256(head).hexdigest() for part, head in heads.items()}
    file = File(number, [Part(source.name_of(part), part.stat().st_size, digests[part]) for part in heads])
    try:
        tensors, settings = tensors_of(path), settings_of(path)
    except (ValueError, OSError) as error:
        file.troubles.append(source.words(error).removeprefix(file.name).lstrip(': '))
        return file, [], []
    file.tensors, file.kinds = len(tensors), kinds(tensors)
    shapes, statistics = _read(tensors, file, on_tensor)
    file.dtypes = dict(Counter(array.dtype.name for array in shapes.values()))
    if not file.kinds:
        file.examples = list(tensors)[:EXAMPLES]
    checkpoints, networks = [], []
    for kind in file.kinds:
        try:
            one = checkpoint(kind, shapes, settings, model)
            fit = compare(shapes, one.table, abstract(merged(model, one.sizes), one.networks))
        except IMPOSSIBLE as error:
            complaints = getattr(error, 'complaints', [f'{type(error).__name__}: {error}'])
            file.troubles += [f'{kind}: {complaint}' for complaint in complaints]
            networks.append(_whole(kind, shapes, statistics, file))
            continue
        checkpoints.append(one)
        networks += _networks(one, fit, statistics, file)
    return file, checkpoints, networks


def _read(tensors, file, on_tensor):
    """({tensor: array of its shape and type that takes no memory}, {tensor: Numbers}); the damaged are left out."""
    shapes, statistics = {}, {}
    for name in tensors:
        try:
            array = tensors[name]
        except UnsafeCheckpointError:
            file.damaged.append(name)
            continue
        shapes[name] = np.broadcast_to(np.zeros((), array.dtype), array.shape)
        statistics[name] = numbers(array)
        on_tensor(array.nbytes)
        del array
        tensors.forget()
    return shapes, statistics


def _whole(kind, shapes, statistics, file):
    """All of a file as one Network, for a kind whose networks cannot be told apart."""
    network, total = Network(kind, file.number, kind), Numbers()
    for tensor, found in statistics.items():
        _add(network, tensor, shapes[tensor].dtype, found)
        total.add(found)
    network.statistics = total.summary()
    return network


def _add(network, tensor, dtype, found):
    network.parameters += found.count
    network.dtypes[dtype.name] = network.dtypes.get(dtype.name, 0) + 1
    for kind in ('nan', 'infinite', 'beyond_float16'):
        if getattr(found, kind):
            getattr(network, kind)[tensor] = getattr(found, kind)


def _networks(one: Checkpoint, fit: Fit, statistics: Mapping[str, Numbers], file: File) -> Iterable[Network]:
    """The networks of a checkpoint, each with its tensors and what does not fit of them."""
    networks = {name: Network(name, file.number, one.kind) for name in one.networks}
    totals = {name: Numbers() for name in networks}
    owner = {tensor: paths[0].partition('/')[0] for tensor, paths in fit.paths.items()}
    heads = {}
    for tensor, name in owner.items():
        _add(networks[name], tensor, one.tensors[tensor].dtype, statistics[tensor])
        totals[name].add(statistics[tensor])
        parts = tensor.split('.')
        heads |= {tuple(parts[:n]): heads.get(tuple(parts[:n]), name) for n in range(len(parts))}

    def of(tensor):
        parts = tensor.split('.')
        nearest = (heads.get(tuple(parts[:n])) for n in range(len(parts), -1, -1))
        return networks[owner.get(tensor) or next(filter(None, nearest), one.networks[0])]

    theirs = names_of((misfit.name for misfit in fit.misfits if misfit.kind == 'missing'), one.table)
    for kind, name, what in fit.misfits:
        if kind == 'missing':
            network = networks.get(name.partition('/')[0]) or of(name)
            lacking = theirs.get(name, (name,))
            network.missing += [tensor for tensor in lacking if tensor not in (*file.damaged, *network.missing)]
        elif kind == 'unknown':
            of(name).unknown[name] = what
        elif kind == 'shape':
            of(name).shapes[name] = what
    for name, network in networks.items():
        network.statistics = totals[name].summary()
    return networks.values()


def _put_together(report, published, numbers_of):
    """Marks what conversion uses. Raises ValueError where the files do not fit together."""
    assembly = assemble(published)
    taken = {name: (numbers_of[path], one.kind) for name, (path, one) in assembly.files.items()}
    for network in report.networks:
        place = network.file, network.kind
        if network.name == 'unet' and taken.get('initial') == place:
            network.name = 'initial'
        network.used = taken.get(network.name) == place
    if report.makes_a_model():
        assembly.arrays(assembly.files)
