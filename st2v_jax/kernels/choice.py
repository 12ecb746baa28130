"""Which form an operation is compiled in: its own kernel, or what XLA makes of it. This is the one switch."""

import os
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp

from st2v_jax import devices

VARIABLE = 'ST2V_KERNELS'
CHOICES = ('auto', 'xla', 'kernels')
HOPPER = (9, 0)  # the compute capability that kernels are written for, and checked on

_chosen = jax.make_user_context(None)  # part of the keys of jax's caches, as `devices.compiling_for` is


def choosing(choice: str) -> AbstractContextManager:
    """A context whose programs are compiled with 'auto', 'xla' or 'kernels', whatever $ST2V_KERNELS says.

    'auto' takes a kernel where it was measured to be faster, 'xla' takes none, and 'kernels' takes them wherever they
    fit, on whatever device: for tests and benchmarks.
    """
    return _chosen(_checked(choice, 'choice'))


def takes_kernel(x: jax.Array, *, fits: bool, wins: bool) -> bool:
    """Whether an operation on a traced x takes its kernel.

    Args:
      x: the operation's largest input; kernels are for bfloat16, and no compiler divides them over devices.
      fits: whether the kernel can do these shapes.
      wins: whether it was measured to be faster for them on a card of compute capability 9.0.

    Raises:
      ValueError: $ST2V_KERNELS is not one of the choices.
    """
    choice = _chosen.value or _checked(os.environ.get(VARIABLE) or 'auto', f'${VARIABLE}')
    if choice == 'xla' or not fits or x.dtype != jnp.bfloat16 or devices.parts(x) > 1:
        return False
    return choice == 'kernels' or (wins and devices.capability(devices.current()) == HOPPER)


def _checked(choice, name):
    if choice not in CHOICES:
        raise ValueError(f'{name} must be one of {", ".join(CHOICES)}, not {choice!r}')
    return choice
