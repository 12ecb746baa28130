"""Published weights to our parameter trees and back: one strict table per network, read in both directions.

A row pairs names in a checkpoint with paths in our tree and says how the numbers are laid out. Names are templates:
`{n}` stands for a number, `{part:encoder|decoder}` for one of several words, and the same placeholder on the other
side takes the same value. Nothing is guessed: every tensor of a checkpoint is used once or ignored for a stated
reason, every parameter is filled once, and one error lists everything that does not fit.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from st2v_jax.trees import flatten, unflatten


class Misfit(NamedTuple):
    """One thing in which weights and a model do not fit; as text it is one line.

    Attributes:
      kind: 'missing', 'unknown' or 'shape'; 'follows' for a parameter that stays empty because of another misfit.
      name: of a tensor of the checkpoint, or the path of a parameter of ours.
      what: what is wrong with it.
    """

    kind: str
    name: str
    what: str

    def __str__(self):
        return f'{self.name}: {self.what}'


class ConversionError(ValueError):
    """Weights and model do not fit; `complaints` has one line for each mismatch."""

    def __init__(self, complaints: Iterable[str | Misfit]):
        self.complaints = [str(complaint) for complaint in complaints]
        super().__init__('weights do not fit the model:\n' + '\n'.join(self.complaints))


class Layout(NamedTuple):
    """How torch and we lay out a tensor of `rank` axes (None means any), and the functions between the two."""

    name: str
    rank: int | None
    to_ours: Callable
    to_theirs: Callable


SAME = Layout('same', None, lambda w: w, lambda w: w)
LINEAR = Layout('linear [o, i]', 2, np.transpose, np.transpose)
CONV1D = Layout(
    'convolution [o, i, k]', 3, lambda w: np.moveaxis(w, (0, 1), (-1, -2)), lambda w: np.moveaxis(w, (-1, -2), (0, 1))
)
CONV = CONV1D._replace(name='convolution [o, i, k, k]', rank=4)
# A kernel of width one is a linear map here, and a convolution over frames has one spatial axis.
POINT1D = Layout('convolution [o, i, 1]', 3, lambda w: np.squeeze(w, 2).T, lambda w: w.T[:, :, None])
POINT = Layout('convolution [o, i, 1, 1]', 4, lambda w: np.squeeze(w, (2, 3)).T, lambda w: w.T[:, :, None, None])
FRAMES = Layout(
    'convolution [o, i, k, 1, 1]',
    5,
    lambda w: CONV1D.to_ours(np.squeeze(w, (3, 4))),
    lambda w: CONV1D.to_theirs(w)[..., None, None],
)
IGNORED = Layout('ignored', None, None, None)
VECTOR = Layout('vector [c]', 1, lambda w: w[None], lambda w: np.squeeze(w, 0))


def fused(layout: Layout, count: int) -> Layout:
    """The Layout of one tensor that holds `count` of ours, one after the other along its first axis."""
    return Layout(
        f'{count} x {layout.name}',
        layout.rank,
        lambda w: tuple(layout.to_ours(part) for part in np.split(w, count)),
        lambda *ours: np.concatenate([layout.to_theirs(w) for w in ours]),
    )


@dataclass(frozen=True)
class Row:
    """Names in a checkpoint, the paths in our tree that they become, and how.

    Attributes:
      theirs: name template, or a tuple of them.
      ours: path template, or a tuple of them.
      layout: how the numbers are laid out.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    layout: Layout = SAME


@dataclass(frozen=True)
class Table:
    """Everything about the checkpoints of one network.

    Attributes:
      rows: of all its parameters.
      ignored: (name template, reason) of tensors that are not parameters of the network.
      renamed: (old template, template) of names in older files; rows have the second.
    """

    rows: tuple[Row, ...]
    ignored: tuple[tuple[str, str], ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


def within(table: Table, theirs: str = '', ours: str = '') -> Table:
    """The table with `theirs` before every name of the checkpoint and `ours` before every path of our tree."""
    longer = lambda side, start: start + side if isinstance(side, str) else tuple(start + name for name in side)
    return Table(
        tuple(Row(longer(row.theirs, theirs), longer(row.ours, ours), row.layout) for row in table.rows),
        tuple((theirs + name, reason) for name, reason in table.ignored),
        tuple((theirs + old, theirs + new) for old, new in table.renamed),
    )


def together(*tables: Table) -> Table:
    """One table with the rows of all."""
    return Table(*(sum(fields, ()) for fields in zip(*((t.rows, t.ignored, t.renamed) for t in tables))))


def linear(theirs: str, ours: str, *, bias: bool = True, layout: Layout = LINEAR) -> tuple[Row, ...]:
    """The rows of a layer with a weight and, if `bias`, a bias."""
    rows = (Row(f'{theirs}.weight', f'{ours}/kernel', layout), Row(f'{theirs}.bias', f'{ours}/bias'))
    return rows if bias else rows[:1]


def norm(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of a norm."""
    return Row(f'{theirs}.weight', f'{ours}/scale'), Row(f'{theirs}.bias', f'{ours}/bias')


class Fit(NamedTuple):
    """How a checkpoint and a model fit, see `compare`.

    Attributes:
      paths: tensor -> the parameters of ours that it goes into, of all tensors that the table knows and needs.
      sources: path of ours -> (layout, tensors, which part of what the layout makes of them).
      misfits: whatever does not fit.
    """

    paths: dict[str, tuple[str, ...]]
    sources: dict[str, tuple[Layout, list[str], int]]
    misfits: list[Misfit]


def compare(tensors: Mapping[str, np.ndarray], table: Table, abstract: Mapping[str, Any]) -> Fit:
    """The Fit of a checkpoint and a model: of tensors and parameters only shapes are looked at. See `Converted`."""
    shapes = {path: tuple(leaf.shape) for path, leaf in flatten(abstract).items()}
    found, places, misfits = _group(tensors, table, 'theirs')
    sources = {}
    for (row, bound), names in found.items():
        made = _lay_out(row.layout, 'to_ours', names, [np.asarray(tensors[name]) for name in names], misfits)
        for part, (path, value) in enumerate(zip(_sides(row).ours.fill(bound), made, strict=bool(made))):
            if path not in shapes:
                misfits.append(Misfit('unknown', names[0], f'the model has no {path}'))
            elif path in sources:
                misfits.append(Misfit('unknown', names[0], f'{path} is filled already'))
            elif value.shape != shapes[path]:
                what = f'{path} is {shapes[path]}, the checkpoint gives {value.shape}'
                misfits.append(Misfit('shape', names[0], what))
            sources[path] = row.layout, names, part
    paths = {name: tuple(_sides(row).ours.fill(bound)) for name, (row, bound) in places.items()}
    reached = {path for some in paths.values() for path in some}
    for path in shapes:
        if path not in sources:
            kind = 'follows' if path in reached else 'missing'
            misfits.append(Misfit(kind, path, 'nothing in the checkpoint fills it'))
    return Fit(paths, sources, misfits)


def names_of(paths: Iterable[str], table: Table) -> dict[str, tuple[str, ...]]:
    """{path of ours: the tensors of a checkpoint that fill it}, of the paths that the table knows."""
    _, places, _ = _group(paths, table, 'ours')
    return {path: tuple(_sides(row).theirs.fill(bound)) for path, (row, bound) in places.items()}


class Converted(Mapping[str, np.ndarray]):
    """A checkpoint under the paths of our tree; every array is fetched and laid out when it is asked for.

    Arrays have the types of the checkpoint and are views of its tensors. Creating a Converted checks all of them.

    Args:
      tensors: name -> array of any float type; the mapping may read from disk on access.
      table: of this network and this kind of checkpoint.
      abstract: nested dict of the network's parameters; only shapes are read.

    Raises:
      ConversionError: with every name that no row or several rows match, every shape that differs, and every parameter
        that nothing fills.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], table: Table, abstract: Mapping[str, Any]):
        fit = compare(tensors, table, abstract)
        if fit.misfits:
            raise ConversionError(fit.misfits)
        self._tensors = tensors
        self._sources = {path: fit.sources[path] for path in flatten(abstract)}

    def __getitem__(self, path: str) -> np.ndarray:
        layout, names, part = self._sources[path]
        made = layout.to_ours(*(np.asarray(self._tensors[name]) for name in names))
        return made[part] if isinstance(made, tuple) else made

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def convert(tensors: Mapping[str, np.ndarray], table: Table, abstract: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in a checkpoint: the tree of `abstract` with float32 arrays. See `Converted`."""
    converted = Converted(tensors, table, abstract)
    return unflatten({path: np.asarray(array, np.float32) for path, array in converted.items()})


class Exported(Mapping[str, np.ndarray]):
    """The checkpoint of these parameters, with the names and layouts of `table`; arrays are made when asked for.

    `Converted(Exported(params, table), table, params)` equals params bit for bit, types included; params is a tree or
    {path: array}. Raises ConversionError as `Converted` does.
    """

    def __init__(self, params: Mapping[str, Any], table: Table):
        self._leaves = flatten(params)
        found, _, misfits = _group(self._leaves, table, 'ours')
        self._sources = {}
        for (row, bound), paths in found.items():
            made = _lay_out(row.layout, 'to_theirs', paths, [self._leaf(path) for path in paths], misfits)
            for part, name in enumerate(_sides(row).theirs.fill(bound) if made else ()):
                self._sources[name] = row.layout, paths, part
        if misfits:
            raise ConversionError(misfits)

    def _leaf(self, path):
        return np.asarray(self._leaves[path])

    def __getitem__(self, name: str) -> np.ndarray:
        layout, paths, part = self._sources[name]
        made = layout.to_theirs(*map(self._leaf, paths))
        return np.asarray(made[part] if isinstance(made, tuple) else made, order='C')

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def export(params: Mapping[str, Any], table: Table) -> dict[str, np.ndarray]:
    """All tensors of `Exported`."""
    return dict(Exported(params, table))


class Renamed(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint under other names; fetched when asked for. `names` is {name: name there}."""

    def __init__(self, tensors: Mapping[str, np.ndarray], names: Mapping[str, str]):
        self.tensors, self.names = tensors, names

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def forget(self) -> None:
        """See `PickledTensors.forget`."""
        self.tensors.forget()


class Under(Renamed):
    """The tensors of a checkpoint whose names start with `prefix`, by the rest of the name; fetched when asked for."""

    def __init__(self, tensors: Mapping[str, np.ndarray], prefix: str):
        super().__init__(tensors, {name[len(prefix) :]: name for name in tensors if name.startswith(prefix)})


def _group(names, table, side):
    """Where names belong by the table; `side` says whether names are theirs or ours.

    Returns ({(row, placeholder values): names that match}, {name: (row, placeholder values)} of all that a row knows,
    the misfits).
    """
    found, places, misfits = defaultdict(dict), {}, []
    rows = [*table.rows, *(Row(template, (), IGNORED) for template, _ in table.ignored if side == 'theirs')]
    sides = [(row, getattr(_sides(row), side)) for row in rows]
    for name in names:
        current = _current_name(name, table) if side == 'theirs' else name
        hits = [(row, place, bound) for row, of_row in sides for place, bound in of_row.match(current)]
        if len(hits) != 1:
            misfits.append(Misfit('unknown', name, f'{len(hits)} rows of the table match'))
            continue
        ((row, place, bound),) = hits
        if row.layout is not IGNORED:
            places[name] = row, bound
            at = found[row, bound]
            if place in at:
                misfits.append(Misfit('unknown', name, f'is {at[place]} under another name'))
            at[place] = name
    complete = {}
    for (row, bound), at in found.items():
        wanted = getattr(_sides(row), side).fill(bound)
        lacking = [name for place, name in enumerate(wanted) if place not in at]
        misfits += [Misfit('missing', name, f'missing, though {", ".join(at.values())} is there') for name in lacking]
        if not lacking:
            complete[row, bound] = [at[place] for place in range(len(wanted))]
    return complete, places, misfits


def _current_name(name, table):
    for old, new in table.renamed:
        sides = _sides(Row(old, new))
        for _, bound in sides.theirs.match(name):
            return sides.ours.fill(bound)[0]
    return name


def _lay_out(layout, direction, names, values, misfits):
    """The arrays laid out in one direction; if that fails, adds a misfit and returns nothing."""
    try:
        if direction == 'to_ours' and layout.rank not in (None, values[0].ndim):
            raise ValueError
        made = getattr(layout, direction)(*values)
    except ValueError:
        shapes = ', '.join(str(value.shape) for value in values)
        misfits.append(Misfit('shape', names[0], f'{shapes} is not laid out as {layout.name}'))
        return ()
    return made if isinstance(made, tuple) else (made,)


class _Sides(NamedTuple):
    theirs: '_Side'
    ours: '_Side'


@functools.cache
def _sides(row):
    """The two sides of a row, each of which matches names and is filled with what the other side matched."""
    theirs, ours = ((side,) if isinstance(side, str) else side for side in (row.theirs, row.ours))
    kinds = {}
    for template in (*theirs, *ours):
        for name, kind in _PLACEHOLDER.findall(template):
            kinds[name] = kind or kinds.get(name, r'\d+')
    return _Sides(_Side(theirs, kinds), _Side(ours, kinds))


class _Side:
    def __init__(self, templates, kinds):
        self.templates = [_PLACEHOLDER.sub(r'{\1}', template) for template in templates]
        starts = [template.split('{')[0] for template in templates]
        self.patterns = list(zip(starts, (_pattern(template, kinds) for template in templates)))

    def match(self, name):
        """(place, placeholder values) of every template that the whole name matches."""
        matches = []
        for place, (start, pattern) in enumerate(self.patterns):
            # Most of a thousand rows begin differently, and comparing the start is quicker than matching.
            if name.startswith(start) and (match := pattern.fullmatch(name)):
                matches.append((place, tuple(sorted(match.groupdict().items()))))
        return matches

    def fill(self, bound):
        return [template.format(**dict(bound)) for template in self.templates]


_PLACEHOLDER = re.compile(r'\{(\w+)(?::([^}]*))?\}')


def _pattern(template, kinds):
    """The regular expression of a template; a placeholder that appears again must have the same value."""
    pattern, end, seen = '', 0, set()
    for match in _PLACEHOLDER.finditer(template):
        name = match[1]
        pattern += re.escape(template[end : match.start()])
        pattern += f'(?P={name})' if name in seen else f'(?P<{name}>{kinds[name]})'
        seen.add(name)
        end = match.end()
    if seen != set(kinds):
        raise ValueError(f'{template!r} lacks the placeholders {sorted(set(kinds) - seen)} of its row')
    return re.compile(pattern + re.escape(template[end:]))
