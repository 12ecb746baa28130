"""A pool of examples made once and kept on the devices, and batches that are drawn from it.

A pool is a tree of arrays [rows, n, ...], as many rows as a batch has examples, split over the mesh's data axes by
rows. Example i of every batch comes from row i: drawing moves nothing between devices, and the batch does not depend
on how many devices there are.
"""

from functools import partial

import jax
import jax.numpy as jnp
from tqdm import tqdm

from st2v_jax import sharding


def rows(values, batch_size, mesh):
    """Values [total, ...] of as many scenes -> [batch_size, total / batch_size, ...], one row an example of a batch."""
    total = len(values)
    if total % batch_size:
        raise ValueError(f'a pool of {total} scenes cannot be cut into {batch_size} equal rows, as many as a batch')
    sharding.check_rows(batch_size, mesh)
    return values.reshape(batch_size, total // batch_size, *values.shape[1:])


def place(tree, mesh):
    """Host arrays [rows, n, ...] -> a pool of them on the devices."""
    return sharding.place(tree, sharding.split_rows(mesh))


def fill(make, inputs, parameters, mesh, *, columns=1, compiler_options=None):
    """The pool that `make` makes of `inputs`, a pool of host arrays [rows, n, ...].

    make: (inputs [rows, columns, ...], parameters) -> tree of arrays [rows, columns, ...]; traced once.
    """
    total = jax.tree.leaves(inputs)[0].shape[1]
    if total % columns:
        raise ValueError(f'{total} columns of a pool cannot be made {columns} at a time')
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
    for start in tqdm(range(0, total, columns), 'drawing the pool', leave=False, dynamic_ncols=True):
        chosen = jax.tree.map(lambda leaf: leaf[:, start : start + columns], inputs)
        pool = write(pool, start, place(chosen, mesh), parameters)
    return jax.block_until_ready(pool)


def draw(key, pool):
    """One example of every row: a pool [rows, n, ...] -> a batch [rows, ...]; a pure function of key and pool."""
    count, n = jax.tree.leaves(pool)[0].shape[:2]
    chosen = jax.random.randint(key, (count,), 0, n)
    return jax.tree.map(lambda leaf: jax.vmap(lambda row, i: row[i])(leaf, chosen), pool)
