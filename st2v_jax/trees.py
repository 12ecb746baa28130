"""Trees of parameters: nested dicts with string keys, whose leaves have paths such as 'unet/conv_in/kernel'."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any


def leaves(tree: Mapping[str, Any], parent: str = '') -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf) in the order of the tree, with `parent` before every path."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f'{parent}{key}/')
        else:
            yield f'{parent}{key}', value


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """{path: leaf} of a tree; a flat tree comes back equal."""
    return dict(leaves(tree))


def unflatten(flat: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The tree of {path: leaf}, or of such pairs: the inverse of `flatten`, except for branches without leaves."""
    tree = {}
    for path, leaf in dict(flat).items():
        *parents, name = path.split('/')
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = leaf
    return tree


def computed_in(tree: Mapping[str, Any]) -> Any:
    """The dtype of a network's kernels and embeddings, which it computes in."""
    return next(leaf.dtype for _, leaf in leaves(tree) if leaf.ndim > 1)


def split(tree: Mapping[str, Any], chosen: Callable[[str], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two trees, the leaves whose paths are chosen and the others; `join` makes them one again."""
    sides = {}, {}
    for path, leaf in leaves(tree):
        sides[0 if chosen(path) else 1][path] = leaf
    return unflatten(sides[0]), unflatten(sides[1])


def join(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """One tree with the leaves of all; if several have the same path, the last one counts."""
    return unflatten(pair for tree in trees for pair in leaves(tree))
