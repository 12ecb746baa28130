"""One switch decides whether an operation takes its kernel."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from st2v_jax import devices
from st2v_jax.kernels import choice
from st2v_jax.kernels.choice import KERNELS, VARIABLE, choosing

X = jnp.zeros((2, 3), jnp.bfloat16)


def takes_kernel(x, *, fits=True, kernel='gated_product'):
    return choice.takes_kernel(kernel, x, fits=fits, shape=x.shape)


class Card(SimpleNamespace):
    __hash__ = object.__hash__


HOPPER, AMPERE, BLACKWELL = (Card(platform='gpu', compute_capability=c) for c in ('9.0', '8.0', '10.0'))
TPU = Card(platform='tpu')


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(choice, 'WINS', {('gated_product', (9, 0), 'bfloat16'): {X.shape}})


def test_auto_takes_a_kernel_on_hopper_only_and_where_it_wins():
    for device, expected in ((HOPPER, True), (AMPERE, False), (BLACKWELL, False), (TPU, False)):
        with devices.compiling_for(device):
            assert takes_kernel(X) == expected
            assert not takes_kernel(X[:1])  # another shape
            assert not takes_kernel(X, kernel='frame_attention')
            assert not takes_kernel(X, fits=False)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float16])
def test_kernels_are_for_bfloat16(dtype):
    with devices.compiling_for(HOPPER), choosing('kernels'):
        assert not takes_kernel(X.astype(dtype))


@pytest.mark.parametrize('device', [HOPPER, AMPERE, TPU])
def test_both_ends_of_the_switch_hold_on_every_device(device, monkeypatch):
    with devices.compiling_for(device):
        with choosing('kernels'):
            assert takes_kernel(X[:1])
            assert not takes_kernel(X, fits=False)
        with choosing('xla'):
            assert not takes_kernel(X)
        monkeypatch.setenv(VARIABLE, 'kernels')
        assert takes_kernel(X[:1])
        monkeypatch.setenv(VARIABLE, 'xla')
        assert not takes_kernel(X)


def test_single_kernels_are_forced_by_name(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'gated_product,channel_moments')
    with devices.compiling_for(HOPPER):
        taken = {name for name in KERNELS if takes_kernel(X, kernel=name)}
        assert taken == {'gated_product', 'channel_moments'}
        with choosing('frame_attention'):
            assert {name for name in KERNELS if takes_kernel(X, kernel=name)} == {'frame_attention'}


def test_what_was_measured_is_of_kernels_that_there_are(monkeypatch):
    monkeypatch.undo()
    assert {kernel for kernel, *_ in choice.WINS} <= set(KERNELS)


def test_the_program_decides_before_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'kernels')
    with choosing('xla'):
        assert not takes_kernel(X)


def test_a_program_traced_with_one_choice_is_not_used_for_another():
    traced = jax.jit(lambda x: x + takes_kernel(x))
    with choosing('xla'):
        assert traced(X).max() == 0
    with choosing('kernels'):
        assert traced(X).min() == 1


@pytest.mark.parametrize('word', ['on', '1', 'xla,kernels', 'gated_product,', 'frame-attention'])
def test_other_words_are_refused(word, monkeypatch):
    with pytest.raises(ValueError, match=f"choice must be one of auto, xla, .*, not '{word}'"):
        choosing(word)
    monkeypatch.setenv(VARIABLE, word)
    with pytest.raises(ValueError, match=rf"\$ST2V_KERNELS must be one of auto, xla, .*, not '{word}'"):
        takes_kernel(X)
