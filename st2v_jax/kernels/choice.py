"""Which form an operation is compiled in: its own kernel, or what XLA makes of it. This is the one switch."""

import os
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp

from st2v_jax import devices

VARIABLE = 'ST2V_KERNELS'
CHOICES = ('auto', 'xla', 'kernels')
KERNELS = ('frame_attention', 'gated_product', 'channel_moments')

# Where `auto` takes a kernel: {(kernel, compute capability, dtype): shapes}, each of which was measured to be faster in
# the whole step, not only by itself. Shapes are those that the benchmarks print, with the batch.
WINS: dict[tuple[str, tuple[int, int], str], set[tuple[int, ...]]] = {
    ('frame_attention', (9, 0), 'bfloat16'): set(),  # (videos, frames, pixels, channels)
    ('gated_product', (9, 0), 'bfloat16'): set(),  # (rows, channels)
    ('channel_moments', (9, 0), 'bfloat16'): set(),  # (videos or frames, elements of each, channels)
}

_chosen = jax.make_user_context(None)  # part of the keys of jax's caches, as `devices.compiling_for` is


def choosing(choice: str) -> AbstractContextManager:
    """A context whose programs are compiled with the kernels of this choice, whatever $ST2V_KERNELS says.

    'auto' takes a kernel where it was measured to be faster, 'xla' takes none, and 'kernels' takes them wherever they
    fit, on whatever device; names of kernels, divided by commas, take those wherever they fit, and no others.

    Raises:
      ValueError: it is no such choice.
    """
    return _chosen(_checked(choice, 'choice'))


def takes_kernel(kernel: str, x: jax.Array, *, fits: bool, shape: tuple[int, ...]) -> bool:
    """Whether an operation on a traced x takes its kernel.

    Args:
      kernel: its name, one of KERNELS.
      x: the operation's largest input; kernels are for bfloat16, and no compiler divides them over devices.
      fits: whether the kernel can do these shapes.
      shape: of x, as WINS has it.

    Raises:
      ValueError: $ST2V_KERNELS is no choice.
    """
    choice = _chosen.value or _checked(os.environ.get(VARIABLE) or 'auto', f'${VARIABLE}')
    if not fits or x.dtype != jnp.bfloat16 or devices.parts(x) > 1:
        return False
    if choice == 'auto':
        return shape in WINS.get((kernel, devices.capability(devices.current()), x.dtype.name), ())
    return choice == 'kernels' or kernel in choice.split(',')


def _checked(choice, name):
    if choice not in CHOICES and not set(choice.split(',')) <= set(KERNELS):
        raise ValueError(f'{name} must be one of {", ".join(CHOICES)}, or of {", ".join(KERNELS)}, not {choice!r}')
    return choice
