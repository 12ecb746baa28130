"""Every kernel gives the numbers and gradients of the formula, in bounded memory; a device gets one that it can run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pallas

from st2v_jax import devices
from st2v_jax.kernels import softmax_attention
from st2v_jax.kernels.softmax_attention import attend, blocked, by_heads, kernel_for, plain, splash

GIB = 2**30


class Device(NamedTuple):
    platform: str
    compute_capability: str | None = None


CPU, TPU, H100, A100, T4, V100, P100 = (
    Device('cpu'),
    Device('tpu'),
    Device('gpu', '9.0'),
    Device('gpu', '8.0'),
    Device('gpu', '7.5'),
    Device('gpu', '7.0'),
    Device('gpu', '6.0'),
)
AMD, BLACKWELL = Device('gpu', 'gfx942'), Device('gpu', '10.0')


def shapes(b, t, s, n, d, dtype='bfloat16'):
    """q, k, v as shapes."""
    shape = lambda length: jax.ShapeDtypeStruct((b, length, n, d), dtype)
    return shape(t), shape(s), shape(s)


def numbers(b, t, s, n, d, dtype='float32'):
    """q, k, v with random numbers, wide enough for a softmax that is far from even."""
    random = np.random.default_rng(t + s)
    return [jnp.asarray(2 * random.standard_normal(x.shape, np.float32), dtype) for x in shapes(b, t, s, n, d)]


def name_of(device, *sizes):
    """The name of the kernel that a device gets."""
    names = []
    jax.eval_shape(lambda q, k, v: names.append(kernel_for(device, q, k).__name__), *shapes(*sizes))
    return names[0]


@pytest.mark.parametrize('device', [H100, A100, BLACKWELL])
def test_cudnn_is_for_half_precision_on_ampere_and_later(device):
    assert name_of(device, 24, 14400, 14400, 5, 64) == 'cudnn'
    assert name_of(device, 1, 1024, 77, 5, 64) == 'cudnn'
    assert name_of(device, 24, 14400, 14400, 5, 64, 'float16') == 'cudnn'
    for sizes in (
        (24, 14400, 14400, 5, 64, 'float32'),
        (4, 14400, 14400, 1, 512),  # the autoencoder's head is too wide
        (4, 1025, 14400, 16, 80),  # an odd number of queries
        (24, 14400, 14400, 5, 60),
    ):
        assert name_of(device, *sizes) == 'blocked'
    assert name_of(device, 1024, 16, 16, 5, 64) == 'plain'  # frames


@pytest.mark.parametrize('device', [T4, V100, P100, AMD, CPU])
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_a_device_without_a_kernel_computes_long_sequences_in_blocks(device, dtype):
    assert name_of(device, 24, 14400, 14400, 5, 64, dtype) == 'blocked'
    assert name_of(device, 4, 14400, 14400, 1, 512, dtype) == 'blocked'
    assert name_of(device, 1, 345600, 154, 5, 64, dtype) == 'blocked'
    short = 'by_heads' if device is CPU and dtype == 'float32' else 'plain'
    assert name_of(device, 2, 77, 77, 16, 64, dtype) == name_of(device, 2, 1024, 1024, 5, 64, dtype) == short


def test_a_tpu_runs_its_kernel_on_long_sequences_only():
    assert name_of(TPU, 24, 14400, 14400, 5, 64) == name_of(TPU, 4, 14400, 14400, 1, 512) == 'splash'
    assert name_of(TPU, 2, 1024, 1024, 5, 64, 'float32') == 'splash'
    assert name_of(TPU, 2, 77, 77, 16, 64) == name_of(TPU, 1024, 32, 32, 5, 64) == 'plain'
    assert name_of(TPU, 1, 345600, 154, 5, 64) == 'blocked'


def test_what_the_compiler_divides_has_no_kernel_that_it_cannot_divide():
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.P('data'))
    given = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split) for x in shapes(8, 1024, 1024, 5, 64)]
    names = []

    def seen(q, k, v):
        names.append(kernel_for(TPU, q, k).__name__)
        return q

    jax.jit(seen).lower(*given)
    within = jax.shard_map(seen, mesh=mesh, in_specs=split.spec, out_specs=split.spec, check_vma=False)
    jax.jit(within).lower(*given)
    assert names == ['plain', 'splash']  # within a shard_map, each device has a batch of one


def test_a_program_for_another_device_is_another_program():
    program, given = jax.jit(attend), shapes(1, 2048, 2048, 9, 64)
    with devices.compiling_for(TPU):
        assert 'pallas_call' in str(program.trace(*given).jaxpr)
    assert 'pallas_call' not in str(program.trace(*given).jaxpr)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('sizes', [(2, 77, 77, 2, 8), (3, 64, 77, 2, 64), (2, 256, 256, 1, 16), (9, 16, 16, 2, 8)])
def test_small_shapes_are_the_program_that_jax_makes_of_the_formula(sizes, causal):
    given = shapes(*sizes, 'float32')
    formula = lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    through = lambda q, k, v: attend(q, k, v, causal=causal)
    through.__name__ = formula.__name__ = 'attention'
    with devices.compiling_for(T4):
        assert jax.jit(through).lower(*given).as_text() == jax.jit(formula).lower(*given).as_text()


def assert_like_the_formula(kernel, given, causal):
    """Values and gradients, within the rounding of the inputs' type."""
    dtype = given[0].dtype
    loss = lambda kernel: lambda *given: jnp.sum(jnp.sin(kernel(*given, causal).astype(jnp.float32)))
    found, right = (
        [
            jax.jit(of)(*given)
            for of in (lambda *given, of=of: of(*given, causal), jax.grad(loss(of), argnums=(0, 1, 2)))
        ]
        for of in (kernel, plain)
    )
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        assert ours.dtype == dtype and np.isfinite(np.asarray(ours, np.float32)).all()
        apart = np.linalg.norm(np.float32(ours) - np.float32(theirs))
        assert apart <= {'float32': 1e-5, 'bfloat16': 2e-2}[dtype.name] * np.linalg.norm(np.float32(theirs))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('sizes', 'causal', 'memory'),
    [
        ((1, 1, 1, 1, 8, 'float32'), False, 1),  # less than one query needs
        ((2, 1, 77, 2, 16, 'bfloat16'), False, 1),
        ((3, 77, 77, 2, 40, 'float32'), True, 1),
        ((4, 101, 77, 1, 64, 'bfloat16'), False, 20_000),  # the last block begins earlier
        ((5, 64, 1, 3, 80, 'float32'), False, 2_000),
        ((6, 90, 131, 2, 8, 'bfloat16'), True, 300_000),  # groups of three; the last keys are never seen
        ((4, 128, 128, 1, 512, 'float32'), False, 20_000),
    ],
)
def test_blocks_give_the_numbers_of_the_formula(sizes, causal, memory, monkeypatch, unoptimised):
    monkeypatch.setattr(softmax_attention, 'SCORE_BYTES', memory)
    assert_like_the_formula(blocked, numbers(*sizes), causal)


@pytest.mark.slow
@pytest.mark.parametrize('sizes', [(2, 77, 77, 2, 8), (1, 3, 2, 1, 8), (3, 64, 77, 2, 64), (2, 33, 5, 1, 512)])
@pytest.mark.parametrize('causal', [False, True])
def test_the_order_for_a_cpu_gives_the_numbers_of_the_formula(sizes, causal, unoptimised):
    assert_like_the_formula(by_heads, numbers(*sizes), causal)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('scale', [0, 0.1, 1, 4, 30])  # quick, up to scores that are far out of an exponential's range
def test_scores_of_any_size_give_the_numbers_of_the_formula(dtype, scale, monkeypatch, unoptimised):
    monkeypatch.setattr(softmax_attention, 'SCORE_BYTES', 20_000)
    q, k, v = numbers(2, 101, 77, 1, 64, dtype)
    assert_like_the_formula(blocked, (scale * q, k.at[:, 7].multiply(3), v), False)


@pytest.mark.slow
def test_float16_gives_the_numbers_of_the_formula(monkeypatch, unoptimised):
    monkeypatch.setattr(softmax_attention, 'SCORE_BYTES', 20_000)
    given = numbers(2, 101, 77, 1, 64, 'float16')
    np.testing.assert_allclose(attend(*given), plain(*map(jnp.float32, given), False), atol=3e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('t', 's', 'd', 'causal'), [(500, 600, 64, False), (512, 512, 8, True), (1, 77, 80, False), (77, 512, 512, False)]
)
def test_the_kernel_for_a_tpu_gives_the_numbers_of_the_formula(t, s, d, causal, unoptimised):
    with pallas.force_tpu_interpret_mode():
        assert_like_the_formula(splash, numbers(1, t, s, 1, d), causal)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('sizes', 'values', 'gradients'),
    [((24, 14400, 14400, 5, 64), 1.25, 1.75), ((4, 14400, 14400, 1, 512), 1.75, 2), ((1, 345600, 77, 5, 64), 1, 2)],
)
def test_long_sequences_take_little_memory(sizes, values, gradients):
    given = shapes(*sizes, 'float32')
    loss = lambda *given: jnp.sum(attend(*given))
    for function, most in ((attend, values), (jax.grad(loss, argnums=(0, 1, 2)), gradients)):
        memory = jax.jit(function).lower(*given).compile().memory_analysis()
        assert memory.temp_size_in_bytes < most * GIB


@pytest.mark.slow
def test_a_batch_that_is_split_over_devices_stays_so(monkeypatch):
    monkeypatch.setattr(
        softmax_attention, 'SCORE_BYTES', 4 * 128 * 32
    )  # a device has 32 queries in a block, of 4 x 128
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.P('data'))
    given = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split) for x in shapes(32, 128, 128, 1, 8, 'float32')]
    text = (
        jax.jit(jax.grad(lambda *given: jnp.sum(blocked(*given, False)), argnums=(0, 1, 2)))
        .lower(*given)
        .compile()
        .as_text()
    )
    assert 'while' in text and not any(word in text for word in ('all-gather', 'all-to-all', 'collective-permute'))
