"""Kernels lower for Hopper without a card, gradients are those of the XLA form, and other shapes get the XLA form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.kernels import frame_attention, gated_product
from st2v_jax.kernels.choice import choosing

pytestmark = pytest.mark.slow  # importing Mosaic GPU takes a second


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16)


def lowered(operation, *inputs):
    """The text of the program for CUDA, with kernels wherever they fit."""
    with choosing('kernels'):
        return jax.jit(operation).trace(*inputs).lower(lowering_platforms=('cuda',)).as_text()


@pytest.mark.parametrize(
    ('shape', 'fits'),
    [
        ((2, 16, 1024, 320), True),
        ((2, 16, 16, 1280), True),
        ((1, 24, 920, 1280), True),
        ((1, 4, 64, 64), True),
        ((1, 32, 8, 64), True),
        ((1, 16, 13, 64), False),  # pixels that no block divides
        ((1, 20, 16, 64), False),  # as many frames make no whole products
    ],
)
def test_attention_over_frames_lowers_for_cuda_or_stays_with_xla(shape, fits):
    x, heads = shaped(*shape), shape[-1] // 64
    text = lowered(lambda q, k, v: frame_attention.attention_over_frames(q, k, v, heads), x, x, x)
    assert ('mosaic_gpu' in text) == fits


@pytest.mark.parametrize(
    ('rows', 'channels', 'fits'),
    [(32_768, 320, True), (22_080, 1280, True), (1000, 640, True), (1024, 96, False), (64, 320, False)],
)
def test_gated_product_lowers_for_cuda_or_stays_with_xla(rows, channels, fits):
    for dtype in (jnp.bfloat16, jnp.float32):  # of biases as they are loaded, and as they are trained
        bias = jax.ShapeDtypeStruct((8 * channels,), dtype)
        text = lowered(gated_product.gated_product, shaped(rows, channels), shaped(channels, 8 * channels), bias)
        assert ('mosaic_gpu' in text) == fits


def test_heads_of_another_width_stay_with_xla():
    x = shaped(2, 16, 256, 96)
    assert 'mosaic_gpu' not in lowered(lambda q, k, v: frame_attention.attention_over_frames(q, k, v, 4), x, x, x)


def test_gradients_are_those_of_the_xla_form(monkeypatch):
    """Kernels do not run here, so their XLA forms take their place in the forward pass."""
    monkeypatch.setattr(frame_attention, 'with_kernel', frame_attention.with_xla)
    monkeypatch.setattr(gated_product, 'with_kernel', gated_product.with_xla)
    random = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)
    attention = lambda q, k, v: frame_attention.attention_over_frames(q, k, v, 1)
    for operation, inputs in (
        (attention, [random(i, 1, 16, 8, 64) for i in range(3)]),
        (gated_product.gated_product, [random(3, 128, 64), random(4, 64, 512), random(5, 512).astype(jnp.float32)]),
    ):
        pulled = {}
        for choice in ('xla', 'kernels'):
            with choosing(choice):
                y, pull = jax.vjp(operation, *inputs)
                pulled[choice] = pull(jnp.ones_like(y))
        for got, want in zip(pulled['kernels'], pulled['xla'], strict=True):
            np.testing.assert_array_equal(np.asarray(got, np.float32), np.asarray(want, np.float32))


def test_the_normal_distribution_function_of_the_epilogue_is_exact_to_float32():
    x = np.linspace(-12, 12, 10_001, dtype=np.float32)
    np.testing.assert_allclose(gated_product._normal_cdf(x), jax.scipy.stats.norm.cdf(x), atol=5e-7)
