"""Where arrays are placed: the device mesh and one table of rules, outside the models."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA = 'data'  # the axis along which batches, chunks, prompts and guidance branches are split
FSDP = 'fsdp'  # also splits batches, and parameters where they are stored; these are gathered for use
TENSOR = 'tensor'  # splits what a layer computes, and its parameters with it

# The last two dimensions of a kernel [..., in, out]. Of two layers in a row, the first is split by columns and the
# second by rows. So values between them stay split, and one sum over the devices ends the pair (Shoeybi et al. 2019,
# arXiv:1909.08053).
COLUMNS = (FSDP, TENSOR)
ROWS = (TENSOR, FSDP)
STORED = (None, FSDP)  # not part of a pair: split only where it is stored
WHOLE = ()

# (pattern of the end of a parameter's path, how its last dimensions are split); the first match wins. Vectors are not
# split, and neither is a dimension that its axis does not divide.
RULES = (
    (r'to_[qkv]/kernel', COLUMNS),  # heads
    (r'to_out/kernel', ROWS),
    (r'(ff/proj|fc1)/kernel', COLUMNS),
    (r'(ff/out|fc2)/kernel', ROWS),
    (r'resnets/\d+/(conv1|time_emb_proj)/kernel', COLUMNS),  # their sum goes into conv2
    (r'resnets/\d+/conv2/kernel', ROWS),
    (r'temp_convs/\d+/convs/[02]/kernel', COLUMNS),
    (r'temp_convs/\d+/convs/[13]/kernel', ROWS),
    (r'linear_1/kernel', COLUMNS),  # of the time embedding and of the anchor's tokens
    (r'linear_2/kernel', ROWS),
    (r'kernel|embedding', STORED),
    (r'.*', WHOLE),
)


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of named axes over the devices, in their order.

    Args:
      axes: {name: size}; one size may be -1, which takes all remaining devices.
      devices: None is all.

    Raises:
      ValueError: if the axes do not fit the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dict(axes)
    open_axes = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) > 1 or fixed < 1 or len(devices) % fixed or (not open_axes and fixed != len(devices)):
        raise ValueError(f'mesh {sizes} does not divide {len(devices)} devices')
    for name in open_axes:
        sizes[name] = len(devices) // fixed
    # Explicit axes, the default of jax, do not support the merged axes that einops makes.
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that has the same values on every device."""
    return NamedSharding(mesh, P())


def split_rows(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first axis is split over the data axes: batches, and pools of examples."""
    return NamedSharding(mesh, P(_data_axes(mesh)))


def check_rows(rows: int, mesh: Mesh) -> None:
    """Raises ValueError if a first axis of this length cannot be split evenly over the data axes."""
    count = math.prod(mesh.shape[axis] for axis in _data_axes(mesh))
    if rows % count:
        raise ValueError(f'a batch of {rows} cannot be split over {count} devices')


def _data_axes(mesh):
    return tuple(axis for axis in (DATA, FSDP) if axis in mesh.shape)


def shardings(tree: Any, mesh: Mesh, rules: tuple[tuple[str, tuple], ...] = RULES) -> Any:
    """The sharding of every leaf of a tree of parameters, or of a tree that repeats their paths (optimizer, EMA)."""

    def pick(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        for pattern, split in rules:
            if re.fullmatch(rf'(.*/)?({pattern})', name):
                return NamedSharding(mesh, _spec(leaf.shape, split, mesh))
        raise ValueError(f'no sharding rule for {name} {leaf.shape}: add one to RULES')

    return jax.tree.map_with_path(pick, tree)


def _spec(shape, split, mesh):
    if len(shape) < 2:
        return P()
    axes = (None,) * (len(shape) - len(split)) + split
    fits = lambda size, axis: axis in mesh.shape and size % mesh.shape[axis] == 0
    return P(*(axis if fits(size, axis) else None for size, axis in zip(shape, axes, strict=True)))


def place(tree: Any, places: Any) -> Any:
    """Puts host arrays on the devices, by the shardings in `places` (a tree of them, or one for all).

    It goes leaf by leaf, and a device receives only its share of a leaf, so no device needs to hold them all. Every
    process calls it with the same arrays, and places the shares of its own devices.
    """
    if isinstance(places, NamedSharding):
        places = jax.tree.map(lambda _: places, tree)
    put = lambda leaf, where: jax.make_array_from_callback(np.shape(leaf), where, np.asarray(leaf).__getitem__)
    return jax.tree.map(put, tree, places)


def to_host(tree: Any) -> Any:
    """A tree of arrays on the devices of all processes as numpy arrays, leaf by leaf; every process must call it."""

    def fetch(leaf):
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return np.asarray(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch, tree)
