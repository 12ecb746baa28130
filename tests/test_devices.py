"""What networks compute in on a device follows from the device, is said with the reason, and has a checked range."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax import devices
from st2v_jax.cli.videos import name_device
from st2v_jax.devices import capability, check_finite, compiling_for, computing, default_dtype
from st2v_jax.errors import OutOfRange


class Device(NamedTuple):
    platform: str
    device_kind: str
    compute_capability: str | None = None


@pytest.mark.parametrize(
    ('device', 'dtype', 'why'),
    [
        (Device('cpu', 'cpu'), 'float32', 'for 16 bits are not faster on a CPU'),
        (Device('tpu', 'TPU v5 lite'), 'bfloat16', 'for which its matrix units are made'),
        (Device('gpu', 'NVIDIA H100', '9.0'), 'bfloat16', 'has the range of float32'),
        (Device('gpu', 'NVIDIA B200', '10.0'), 'bfloat16', 'has the range of float32'),
        (Device('gpu', 'NVIDIA A100', '8.0'), 'bfloat16', 'has the range of float32'),
        (Device('gpu', 'NVIDIA L4', '8.9'), 'bfloat16', 'has the range of float32'),
        (Device('gpu', 'AMD Instinct MI300X', 'gfx942'), 'bfloat16', 'has the range of float32'),
        (Device('gpu', 'Tesla T4', '7.5'), 'float16', 'needs compute capability 8.0, and this is 7.5'),
        (Device('gpu', 'Tesla V100', '7.0'), 'float16', 'needs compute capability 8.0, and this is 7.0'),
        (Device('gpu', 'Tesla P40', '6.1'), 'float32', 'needs compute capability 8.0, and this is 6.1'),
    ],
    ids=lambda value: getattr(value, 'device_kind', ''),
)
def test_the_type_follows_from_the_device_and_the_first_line_says_why(device, dtype, why, capsys):
    assert computing(device).dtype == jnp.dtype(dtype)
    with compiling_for(device):
        assert default_dtype() == jnp.dtype(dtype)
        name_device(None)
        name_device('float32')
    first, chosen = capsys.readouterr().out.splitlines()
    assert first.startswith('device: ') and f'computing in {dtype}, ' in first and first.endswith(why)
    assert device.platform == 'cpu' or device.device_kind in first
    assert chosen.endswith('computing in float32, as chosen')


def test_the_first_device_of_this_machine_counts_outside_of_the_context():
    with compiling_for(Device('tpu', 'TPU v5 lite')):
        assert devices.current().platform == 'tpu'
    assert devices.current() == jax.local_devices()[0] and default_dtype() == jnp.float32


def test_capabilities_are_compared_as_numbers():
    assert capability(Device('gpu', '', '10.3')) > capability(Device('gpu', '', '9.0')) > (8, 9)
    assert capability(Device('gpu', '', 'gfx90a')) is capability(jax.devices()[0]) is None


@pytest.mark.parametrize('bad', [np.inf, -np.inf, np.nan, (np.inf, -np.inf)], ids=str)
def test_one_number_that_is_not_finite_is_found(bad):
    params = {'unet': {'bias': np.zeros(2, np.float32), 'kernel': np.zeros((2, 2), np.float16)}}
    numbers = np.full((3, 4), np.finfo(np.float32).max)  # whose sum is beyond float32
    check_finite(numbers, 'the latents', params)
    numbers.flat[: np.size(bad)] = bad
    with pytest.raises(OutOfRange, match='^the latents are not finite in float16; --dtype float32$'):
        check_finite(numbers, 'the latents', params)
