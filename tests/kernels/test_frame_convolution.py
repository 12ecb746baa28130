"""Norm's affine, SiLU and frame convolution in one kernel: it lowers, it is right, and gradients are XLA's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.kernels import frame_convolution as module
from st2v_jax.kernels.choice import choosing
from st2v_jax.kernels.frame_convolution import frame_convolution, in_tiles, tile_for, with_xla
from st2v_jax.models.layers import TemporalConvBlock

FITTING = (  # (b, f, h, w, c) of full size, CAM's frames, and the Refiner's
    (2, 16, 32, 32, 320),
    (3, 16, 16, 16, 640),
    (1, 16, 8, 8, 1280),
    (2, 16, 4, 4, 1280),
    (2, 8, 32, 32, 320),
    (1, 24, 90, 160, 320),
    (1, 24, 23, 40, 1280),
)
OTHERS = ((1, 16, 32, 32, 48), (1, 16, 6, 6, 64), (2, 4, 4, 4, 8), (1, 3, 5, 7, 320))  # small, odd and tiny


def arguments(b, f, h, w, c, dtype=jnp.bfloat16):
    draw = np.random.default_rng(0).standard_normal
    gain, shift = (jnp.asarray(draw((b, 1, 1, 1, c)), jnp.float32) for _ in range(2))
    kernel, bias = jnp.asarray(0.05 * draw((3, c, c)), dtype), jnp.asarray(draw(c), jnp.float32)
    return jnp.asarray(draw((b, f, h, w, c)), dtype), gain, shift, kernel, bias


def shapes(b, f, h, w, c):
    of = jax.ShapeDtypeStruct
    affine = of((b, 1, 1, 1, c), jnp.float32)
    kernel, bias = of((3, c, c), jnp.bfloat16), of((c,), jnp.float32)
    return of((b, f, h, w, c), jnp.bfloat16), affine, affine, kernel, bias


@pytest.mark.slow
@pytest.mark.parametrize('shape', FITTING)
def test_lowers_for_cuda(shape):
    with choosing('kernels'):
        lowered = jax.jit(frame_convolution).trace(*shapes(*shape)).lower(lowering_platforms=('cuda',))
    assert 'mosaic_gpu' in lowered.as_text()


@pytest.mark.parametrize('shape', OTHERS)
def test_other_shapes_are_left_to_xla(shape):
    b, f, h, w, c = shape
    assert tile_for((b, f, h * w, c), c) is None


@pytest.mark.slow
@pytest.mark.parametrize('tile', [module.Tile(16, 64, 2, 2, 2), module.Tile(8, 128, 1, 3, 2)])
def test_right_in_the_interpreter(tile):
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    b, f, h, w, c = 2, 8, 4, 8, 256
    x, gain, shift, kernel, bias = arguments(b, f, h, w, c)
    affine = jnp.stack([gain.reshape(b, c), shift.reshape(b, c)], axis=1)
    run = jax.jit(lambda *args: in_tiles(*args, tile, InterpretGPUParams()))
    y, sums = run(x.reshape(b, f, h * w, c), affine, kernel, bias)
    expected, mean, square = with_xla(*(a.astype(jnp.float32) for a in (x, gain, shift, kernel, bias)))
    error = jnp.linalg.norm(y.reshape(x.shape) - expected) / jnp.linalg.norm(expected)
    assert error < 4e-3  # two roundings to bfloat16
    mean_sums, square_sums = jnp.sum(sums, (1, 2)).swapaxes(0, 1) / (f * h * w)
    chex.assert_trees_all_close(mean_sums, mean.reshape(b, c), atol=2e-3)
    chex.assert_trees_all_close(square_sums, square.reshape(b, c), rtol=2e-3)


def tiles_by_xla(x, affine, kernel, bias, tile):
    """Stands in for the kernel where it does not run."""
    (b, f, p, _), n = x.shape, kernel.shape[-1]
    gain, shift = (affine[:, i, None, None, None] for i in (0, 1))
    y, *moments = with_xla(x[:, :, None], gain, shift, kernel, bias)
    return y.reshape(b, f, p, n), jnp.stack([m.reshape(b, n) for m in moments], 1)[:, None, None] * (f * p)


@pytest.mark.slow
def test_gradients_are_those_of_the_xla_form(monkeypatch):
    monkeypatch.setattr(module, 'in_tiles', tiles_by_xla)
    args = arguments(1, 8, 4, 2, 64)
    loss = lambda *args: sum(jnp.sum(jnp.sin(a.astype(jnp.float32))) for a in frame_convolution(*args))
    found = []
    for choice in ('kernels', 'xla'):
        with choosing(choice):
            assert module.takes_kernel(args[0], 64) == (choice == 'kernels')
            found.append(jax.jit(jax.grad(loss, argnums=tuple(range(5))))(*args))
    for got, expected in zip(*(jax.tree.map(lambda a: np.asarray(a, np.float32), of) for of in found), strict=True):
        assert np.linalg.norm(got - expected) < 1e-2 * np.linalg.norm(expected)  # roundings to bfloat16


@pytest.mark.slow
def test_the_block_of_the_unet_is_the_same_with_the_kernel(monkeypatch):
    calls = []
    monkeypatch.setattr(module, 'in_tiles', lambda *args: calls.append(args) or tiles_by_xla(*args))
    block = TemporalConvBlock(64, groups=8, dtype=jnp.bfloat16)
    draw = np.random.default_rng(1).standard_normal
    for norm, conv in zip(block.norms, block.convs, strict=True):
        norm.scale[...], norm.bias[...] = (jnp.asarray(draw(64), jnp.float32) for _ in range(2))
        conv.kernel[...], conv.bias[...] = (jnp.asarray(0.1 * draw(s), jnp.float32) for s in ((3, 64, 64), 64))
    x = jnp.asarray(draw((2, 8, 4, 4, 64)), jnp.bfloat16)
    results = {}
    for choice in ('xla', 'frame_convolution'):
        with choosing(choice):
            results[choice] = np.asarray(block(x) - x, np.float32)
    error = np.linalg.norm(results['frame_convolution'] - results['xla']) / np.linalg.norm(results['xla'])
    assert len(calls) == 4
    assert error < 1e-2
