"""Costs that are known by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from st2v_jax.cost import cost, flops
from st2v_jax.devices import compiling_for
from st2v_jax.kernels.softmax_attention import attend
from st2v_jax.models import build

pytestmark = pytest.mark.usefixtures('unoptimised')
F32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)


def kinds(function, *args):
    return [(kernel.kind, kernel.bytes) for kernel in cost(function, *args).kernels]


def test_flops_of_known_programs():
    a, b = F32(3, 4), F32(4, 5)
    assert flops(jnp.matmul, a, b) == 2 * 3 * 4 * 5
    assert flops(jax.jit(lambda a: jax.lax.scan(lambda x, _: (x @ x, None), a, length=7)[0]), F32(2, 2)) == 7 * 16
    convolve = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    assert flops(convolve, F32(1, 8, 8, 3), F32(3, 3, 3, 6)) == 2 * 4 * 4 * 6 * 9 * 3
    either = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x, lambda x: x @ x, x)
    assert flops(either, F32(2, 2)) == 16


def test_what_is_elementwise_reaches_memory_once():
    x = F32(10, 10)
    assert kinds(lambda x: jnp.tanh(x * 2) + 1, x) == [('elementwise', 800)]
    assert kinds(lambda x: jnp.tanh(x) @ x, x) == [('elementwise', 800), ('product', 1200)]
    assert kinds(lambda x: jnp.sum(x * 2), x) == [('reduction', 404)]
    mean_and_square = lambda x: (x.sum(), jnp.square(x).sum())
    assert kinds(mean_and_square, x) == [('reduction', 404)], 'moments are taken in one pass'


def test_peak_memory_counts_what_lives_together():
    x = F32(100, 100)
    chain = lambda x: ((x @ x) @ x) @ x
    assert cost(chain, x).temporary == 2 * 40_000 and cost(chain, x).arguments == 40_000
    assert cost(lambda x: [x @ x, x @ x, x @ x], x).temporary == 3 * 40_000
    loop = lambda x: jax.lax.scan(lambda x, _: ((x @ x) @ x, None), x, length=5)[0]
    assert cost(loop, x).temporary == pytest.approx(3 * 40_000, abs=40_000)


def test_flops_of_the_released_step_are_those_that_were_measured_with():
    config = build.ModelConfig()
    network = build.denoiser(config, jnp.bfloat16)
    text = jax.ShapeDtypeStruct((2, 77, 1024), jnp.bfloat16)
    frames = jax.ShapeDtypeStruct((2, 8, 256, 256, 3), jnp.bfloat16)
    condition = lambda *given: network(*given, method='condition')
    given = network.abstract, text, frames, jax.ShapeDtypeStruct((2, 16, 1024), jnp.bfloat16)
    step = cost(network, network.abstract, F32(2, 16, 32, 32, 4), F32(2), jax.eval_shape(condition, *given))
    assert step.flops == pytest.approx(11.75e12, rel=0.01)  # as docs/performance/denoise-step.json has it


def test_attention_costs_the_same_in_every_form():
    sequences = F32(2, 2048, 16, 64)
    exact, kernels = 4 * 2 * 16 * 2048**2 * 64, {}
    for platform in ('cpu', 'tpu'):
        with compiling_for(NamedTuple('Device', [('platform', str)])(platform)):
            found = cost(attend, sequences, sequences, sequences)
        assert found.flops == exact
        kernels[platform] = {kernel.kind for kernel in found.kernels if kernel.flops}
    assert kernels == {'cpu': {'product'}, 'tpu': {'attention'}}
