"""The device that programs are compiled for, and the type that networks compute in there.

A device is whatever jax calls one: it has a platform, a device_kind and, if it is a card of NVIDIA, a
compute_capability.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout
from jax.typing import DTypeLike

from st2v_jax import trees
from st2v_jax.errors import OutOfRange

_chosen = jax.make_user_context(
    None
)  # part of the keys of jax's caches, so nothing compiled for another device is used


def compiling_for(device: Any) -> AbstractContextManager:
    """A context whose programs are compiled for `device`, such as one of a TPU topology, not for one of this machine.

    jax compiles for the devices that a program's arguments are placed on; this tells our networks which kind these are.
    A stand-in for a device must be hashable.
    """
    return _chosen(device)


def current() -> Any:
    """The device that programs are compiled for."""
    return _chosen.value or jax.local_devices()[0]


def capability(device: Any) -> tuple[int, int] | None:
    """The compute capability of a card of NVIDIA, such as (8, 0); None for any other device."""
    found = re.fullmatch(r'(\d+)\.(\d+)', str(getattr(device, 'compute_capability', '')))
    return found and (int(found[1]), int(found[2]))


def kernel_layout(device: Any, kernel: jax.Array) -> Layout | None:
    """How the kernel of a convolution [..., i, o] should lie in the memory of a device; None is row by row.

    cuDNN reads half precision with the outputs first, [o, ..., i]. A program whose kernels lie in another way writes
    all of them out anew each time that it runs, with every denoising step.
    """
    axes = kernel.ndim
    if capability(device) is None or axes < 3 or kernel.dtype not in (jnp.bfloat16, jnp.float16):
        return None
    return Layout((axes - 1, *range(axes - 1)))


class Computing(NamedTuple):
    """What networks compute in on a device, and why, to be read after the name of the type."""

    dtype: DTypeLike
    why: str


def computing(device: Any) -> Computing:
    """Half precision where a device is fast in it: bfloat16 if possible, for its range is that of float32."""
    if device.platform == 'cpu':
        return Computing(jnp.float32, 'for 16 bits are not faster on a CPU')
    if device.platform == 'tpu':
        return Computing(jnp.bfloat16, 'for which its matrix units are made')
    version = capability(device)
    if version is None or version >= (8, 0):
        return Computing(jnp.bfloat16, 'which is fast there and has the range of float32')
    lacking = 'for bfloat16 needs compute capability 8.0, and this is {}.{}'.format(*version)
    if version >= (7, 0):
        return Computing(jnp.float16, lacking)
    return Computing(jnp.float32, lacking)


def default_dtype() -> DTypeLike:
    """What networks compute in on the device that programs are compiled for; see `computing`."""
    return computing(current()).dtype


def check_finite(numbers: np.ndarray, what: str, params: Mapping[str, Any]) -> None:
    """Raises OutOfRange, with the remedy, if `numbers` that networks with these params made are not all finite."""
    with np.errstate(invalid='ignore'):
        total = np.sum(numbers, dtype=np.float64)  # finite if all float32 numbers are; needs no second array
    if not np.isfinite(total):
        dtype = np.dtype(trees.computed_in(params))
        remedy = '' if dtype == np.float32 else '; --dtype float32'
        raise OutOfRange(f'{what} are not finite in {dtype}{remedy}')


def parts(x: jax.Array) -> int:
    """Over how many devices the compiler divides a traced x: 1 within a `shard_map`, which has done so."""
    mesh = jax.typeof(x).sharding.mesh
    divides = any(kind != jax.sharding.AxisType.Manual for kind in mesh.axis_types)
    return mesh.size if divides else 1
