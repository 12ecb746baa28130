"""Where arrays live: the device mesh and one table of rules, beside the models and not in them."""

import re

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA = 'data'  # the axis along which batches, chunks, prompts and guidance branches are split

# (pattern of a parameter's path, how it is split); the first match wins.
RULES = ((r'.*', P()),)


def make_mesh(axes, devices=None) -> Mesh:
    """The mesh of named axes over the devices, in their order.

    axes: {name: size}; one size may be -1, which takes all devices that the others leave.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dict(axes)
    open_axes = [name for name, size in sizes.items() if size == -1]
    fixed = 1
    for size in sizes.values():
        fixed *= 1 if size == -1 else size
    if len(open_axes) > 1 or fixed < 1 or len(devices) % fixed or (not open_axes and fixed != len(devices)):
        raise ValueError(f'mesh {sizes} does not divide {len(devices)} devices')
    for name in open_axes:
        sizes[name] = len(devices) // fixed
    # Explicit axes, the default of jax, refuse the merged axes that einops makes.
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices)


def replicated(mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, P())


def split_rows(mesh) -> NamedSharding:
    """The first axis of an array split over the data axis: batches, and the pools that they are drawn from."""
    return NamedSharding(mesh, P(DATA))


def check_rows(rows, mesh):
    """Raises ValueError where a first axis of this length cannot be split evenly."""
    if rows % mesh.shape[DATA]:
        raise ValueError(f'a batch of {rows} cannot be split over {mesh.shape[DATA]} devices')


def shardings(tree, mesh, rules=RULES):
    """The sharding of every leaf of a tree of parameters, or of anything that repeats their paths (optimizer, EMA)."""

    def pick(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        for pattern, spec in rules:
            if re.fullmatch(pattern, name):
                return NamedSharding(mesh, spec)
        raise ValueError(f'no sharding rule for {name} {leaf.shape}: add one to RULES')

    return jax.tree.map_with_path(pick, tree)
