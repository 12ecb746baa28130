"""The times of a device of known rates; and the rates of this machine's device can be measured."""

import math

import jax.numpy as jnp
import pytest

from st2v_jax.cost import Cost, Kernel
from st2v_jax.planning import device
from st2v_jax.planning.device import Rates

RATES = Rates(dict.fromkeys(('product', 'convolution', 'attention', 'other'), 1e12), 1e9, 1e9, 1e-6, 1e-5)


def test_a_kernel_takes_its_arithmetic_or_its_traffic():
    assert RATES.seconds(Kernel('convolution', 10**12, 10**6)) == pytest.approx(1, rel=0.01)
    assert RATES.seconds(Kernel('convolution', 10**6, 10**9)) == pytest.approx(1, rel=0.01)
    assert RATES.seconds(Kernel('elementwise', 0, 0)) == 1e-6


def test_a_program_takes_what_its_kernels_take():
    kernels = Kernel('elementwise', 0, 10**6, repeats=3), Kernel('product', 10**9, 0)
    assert RATES.program_seconds(Cost(kernels, 0, 0, 0)) == pytest.approx(3 * 1.001e-3 + 1.001e-3)


def test_this_machines_device_is_measured():
    rates = device.measure(jnp.float32)
    assert set(rates.flops) == set(RATES.flops) and all(map(math.isfinite, rates.flops.values()))
    assert min(*rates.flops.values(), rates.launch, rates.argument) > 0


def test_a_cpu_says_how_much_memory_there_is():
    assert device.device_memory() > 2**28
