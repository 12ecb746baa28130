"""How fast the device of this machine is, measured on request and never stored, and how much memory it has.

A kernel takes the time of its arithmetic or that of its memory traffic, whichever is longer, and a moment to start
(Williams et al. 2009, doi:10.1145/1498765.1498785).
"""

import math
import os
import statistics
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from st2v_jax.cost import Cost, Kernel, cost, flops
from st2v_jax.kernels.softmax_attention import attend
from st2v_jax.models.layers import GroupNorm


@dataclass(frozen=True)
class Rates:
    """How fast a device is.

    Attributes:
      flops: FLOP/s by kind of kernel.
      product_bandwidth, bandwidth: bytes/s of matrix products, and of all other kernels.
      launch: seconds from one kernel to the next.
      argument: seconds that the host takes to pass a program one array.
    """

    flops: dict[str, float]
    product_bandwidth: float
    bandwidth: float
    launch: float
    argument: float

    def seconds(self, kernel: Kernel) -> float:
        """Seconds of one run of a kernel."""
        if (
            kernel.kind == 'product'
        ):  # arithmetic and traffic, as measured on large and on thin products, hardly overlap
            return self.launch + kernel.flops / self.flops['product'] + kernel.bytes / self.product_bandwidth
        arithmetic = kernel.flops / self.flops[kernel.kind] if kernel.flops else 0
        return self.launch + max(arithmetic, kernel.bytes / self.bandwidth)

    def program_seconds(self, cost: Cost) -> float:
        """Seconds of a program whose arrays are all on the device."""
        return sum(self.seconds(kernel) * kernel.repeats for kernel in cost.kernels)


def device_memory() -> int | None:
    """Bytes of memory that we may use on the device; None if it does not say."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and 'bytes_limit' in stats:
        return stats['bytes_limit']
    if jax.default_backend() == 'cpu' and hasattr(os, 'sysconf'):
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return None


def measure(dtype: DTypeLike = jnp.bfloat16) -> Rates:
    """Measures the Rates of this machine's device in a few seconds, each with a kernel like those of the networks."""
    cpu = jax.default_backend() == 'cpu'
    array = lambda *shape: jax.random.normal(jax.random.key(math.prod(shape)), shape, jnp.float32).astype(dtype)
    rows, width, side, frames = (4096, 128, 16, 4) if cpu else (1 << 15, 640, 32, 32)
    launch = _seconds(_chain, jnp.eye(64)) / CHAIN

    # On an accelerator a program runs several, or the time that the host takes to start a program would be measured. A
    # CPU starts programs quickly; several in one would find their inputs in its caches, unlike those of a network.
    repeats = 1 if cpu else 8

    def timed(function, x):
        def repeated(x):
            for _ in range(repeats):
                x = jax.lax.optimization_barrier(function(x))
            return x

        return _seconds(jax.jit(repeated), x) / repeats - launch

    product, thin = matmul_rate(dtype), array(width, width)
    x = array(rows, width)
    left = timed(lambda x: (x @ thin * width**-0.5).astype(dtype), x) - 2 * rows * width**2 / product
    product_bandwidth = (2 * rows + width) * width * x.dtype.itemsize / left if left > 0 else math.inf

    images, kernel = array(frames, side, side, width), array(3, 3, width, width) / (3 * width**0.5)
    convolve = lambda x: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    convolution = flops(convolve, images) / timed(convolve, images)

    heads = array(frames, side * side, width // 64, 64)
    attention = 4 * heads.size * side * side / timed(lambda x: attend(x, x, x), heads)

    norm = GroupNorm(width, 32, epsilon=1e-5, dtype=dtype)
    passed = lambda x: jax.nn.silu(norm(x))
    counted = cost(passed, images)
    traffic = sum(kernel.bytes for kernel in counted.kernels)
    seconds = timed(passed, images) - launch * (len(counted.kernels) - 1)
    return Rates(
        {'product': product, 'convolution': convolution, 'attention': attention, 'other': product},
        product_bandwidth,
        traffic / seconds,
        launch,
        _argument(),
    )


def _argument():
    """Seconds to pass a program one more array, measured with a program that ignores a thousand of them."""
    arrays = [jnp.zeros(8) + i for i in range(1000)]
    program = jax.jit(lambda x, arrays: x + 1, keep_unused=True)
    return _seconds(lambda x: program(x, arrays), arrays[0]) / len(arrays)


def matmul_size() -> int:
    """Rows and columns of a matrix that is large for this machine's device."""
    return 1024 if jax.default_backend() == 'cpu' else 8192


def matmul_rate(dtype: DTypeLike = jnp.bfloat16, n: int | None = None, blocks: int = 5) -> float:
    """FLOP/s of [n, n] x [n, n] matrix products on one device, measured now. n: None is `matmul_size`."""
    n = n or matmul_size()
    square = jax.random.normal(jax.random.key(n), (n, n)).astype(dtype)
    product = jax.jit(lambda x, y: (x @ y * n**-0.5).astype(dtype))
    return 2 * n**3 / _seconds(lambda x: product(x, square), square, blocks)


CHAIN = 256


@jax.jit
def _chain(x):
    """Tiny products one after the other, which take the time from one kernel to the next."""
    b = jnp.eye(64)
    for _ in range(CHAIN):
        x = x @ b
    return x


def _seconds(step, x, blocks=5):
    """Seconds of x = step(x): the median of several blocks of runs, after one block to warm up."""
    runs, times = 2 if jax.default_backend() == 'cpu' else 10, []
    for _ in range(blocks + 1):
        began = time.perf_counter()
        for _ in range(runs):
            x = step(x)
        jax.block_until_ready(x)
        times.append((time.perf_counter() - began) / runs)
    return statistics.median(times[1:])
