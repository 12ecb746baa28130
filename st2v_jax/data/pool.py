"""A pool of examples that is made once and kept on the devices, and batches drawn from it.

A pool is a tree of arrays [rows, n, ...] with one row for each example of a batch. Its rows are split over the data
axes of the mesh. Example i of every batch comes from row i, so drawing moves nothing between devices, and a batch does
not depend on the number of devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from st2v_jax import sharding, stopping


def rows(values: np.ndarray, batch_size: int, mesh: Mesh) -> np.ndarray:
    """Values [total, ...] of scenes as [batch_size, total / batch_size, ...]: one row for each example of a batch."""
    total = len(values)
    if total % batch_size:
        raise ValueError(
            f'a pool of {total} scenes cannot be cut into {batch_size} equal rows, one for each example of a batch'
        )
    sharding.check_rows(batch_size, mesh)
    return values.reshape(batch_size, total // batch_size, *values.shape[1:])


def place(tree: Any, mesh: Mesh) -> Any:
    """Puts a tree of host arrays [rows, n, ...] on the devices, as a pool."""
    return sharding.place(tree, sharding.split_rows(mesh))


def fill(
    make: Callable, inputs: Any, parameters: Any, mesh: Mesh, *, columns: int = 1, compiler_options: dict | None = None
) -> Any:
    """Makes a pool from `inputs`, a tree of host arrays [rows, n, ...], a few columns at a time.

    make: (inputs [rows, columns, ...], parameters) -> tree of arrays [rows, columns, ...]; traced once.
    """
    total = jax.tree.leaves(inputs)[0].shape[1]
    if total % columns:
        raise ValueError(f'a pool of {total} columns cannot be made {columns} columns at a time')
    split = sharding.split_rows(mesh)
    part = partial(jax.tree.map, lambda leaf: leaf[:, :columns])
    shapes = jax.eval_shape(make, part(inputs), parameters)

    @partial(jax.jit, out_shardings=split)
    def empty():
        return jax.tree.map(lambda leaf: jnp.zeros((leaf.shape[0], total, *leaf.shape[2:]), leaf.dtype), shapes)

    @partial(jax.jit, donate_argnums=0, out_shardings=split, compiler_options=compiler_options)
    def write(pool, start, inputs, parameters):
        made = make(inputs, parameters)
        return jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, start, axis=1), pool, made)

    pool = empty()
    for start in tqdm(range(0, total, columns), 'making the pool', leave=False, dynamic_ncols=True):
        stopping.check()
        chosen = jax.tree.map(lambda leaf: leaf[:, start : start + columns], inputs)
        pool = write(pool, start, place(chosen, mesh), parameters)
    return jax.block_until_ready(pool)


def draw(key: jax.Array, pool: Any) -> Any:
    """Draws a batch [rows, ...] from a pool [rows, n, ...]: one example of each row; a pure function."""
    count, n = jax.tree.leaves(pool)[0].shape[:2]
    chosen = jax.random.randint(key, (count,), 0, n)
    return jax.tree.map(lambda leaf: jax.vmap(lambda row, i: row[i])(leaf, chosen), pool)
