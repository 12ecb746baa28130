"""One switch decides whether an operation takes its kernel."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from st2v_jax import devices
from st2v_jax.kernels.choice import VARIABLE, choosing, takes_kernel

X = jnp.zeros((2, 3), jnp.bfloat16)


class Card(SimpleNamespace):
    __hash__ = object.__hash__


HOPPER, AMPERE, BLACKWELL = (Card(platform='gpu', compute_capability=c) for c in ('9.0', '8.0', '10.0'))
TPU = Card(platform='tpu')


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_auto_takes_a_kernel_on_hopper_only_and_where_it_wins():
    for device, expected in ((HOPPER, True), (AMPERE, False), (BLACKWELL, False), (TPU, False)):
        with devices.compiling_for(device):
            assert takes_kernel(X, fits=True, wins=True) == expected
            assert not takes_kernel(X, fits=True, wins=False)
            assert not takes_kernel(X, fits=False, wins=True)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float16])
def test_kernels_are_for_bfloat16(dtype):
    with devices.compiling_for(HOPPER), choosing('kernels'):
        assert not takes_kernel(X.astype(dtype), fits=True, wins=True)


@pytest.mark.parametrize('device', [HOPPER, AMPERE, TPU])
def test_both_ends_of_the_switch_hold_on_every_device(device, monkeypatch):
    with devices.compiling_for(device):
        with choosing('kernels'):
            assert takes_kernel(X, fits=True, wins=False)
            assert not takes_kernel(X, fits=False, wins=True)
        with choosing('xla'):
            assert not takes_kernel(X, fits=True, wins=True)
        monkeypatch.setenv(VARIABLE, 'kernels')
        assert takes_kernel(X, fits=True, wins=False)
        monkeypatch.setenv(VARIABLE, 'xla')
        assert not takes_kernel(X, fits=True, wins=True)


def test_the_program_decides_before_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'kernels')
    with choosing('xla'):
        assert not takes_kernel(X, fits=True, wins=True)


def test_a_program_traced_with_one_choice_is_not_used_for_another():
    traced = jax.jit(lambda x: x + takes_kernel(x, fits=True, wins=False))
    with choosing('xla'):
        assert traced(X).max() == 0
    with choosing('kernels'):
        assert traced(X).min() == 1


def test_other_words_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="choice must be one of auto, xla, kernels, not 'on'"):
        choosing('on')
    monkeypatch.setenv(VARIABLE, '1')
    with pytest.raises(ValueError, match=r"\$ST2V_KERNELS must be one of auto, xla, kernels, not '1'"):
        takes_kernel(X, fits=True, wins=True)
