"""Moments of channels in one kernel: it lowers, it is right, and its gradient is XLA's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.kernels.channel_moments import Tile, channel_moments, in_tiles, tile_for, with_xla
from st2v_jax.kernels.choice import choosing

FRAME, VIDEO = (-3, -2), (-4, -3, -2)


@pytest.mark.slow
@pytest.mark.parametrize('axes', [FRAME, VIDEO])
@pytest.mark.parametrize(
    'shape', [(2, 16, 32, 32, 320), (2, 16, 16, 16, 1920), (3, 16, 8, 8, 2560), (1, 24, 90, 160, 320)]
)
def test_lowers_for_cuda(shape, axes):
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    with choosing('kernels'):
        lowered = jax.jit(channel_moments, static_argnums=1).trace(x, axes).lower(lowering_platforms=('cuda',))
    assert 'mosaic_gpu' in lowered.as_text()


@pytest.mark.parametrize('shape', [(32, 16, 1280), (16, 1024, 48), (16, 36, 64), (4, 64, 8), (24, 920, 1280)])
def test_other_shapes_are_left_to_xla(shape):
    assert tile_for(shape) is None


@pytest.mark.parametrize('shape', [(2, 16384, 320), (32, 1024, 320), (32, 64, 2560), (1, 345600, 320), (16, 192, 64)])
def test_a_tile_divides_its_rows(shape):
    rows, stages, splits = tile_for(shape)
    steps, rest = divmod(shape[1], rows * splits)
    assert rest == 0 and 1 <= stages <= steps


@pytest.mark.slow
def test_right_in_the_interpreter():
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 512, 128)) + 0.5, jnp.bfloat16)
    sums = jax.jit(lambda x: in_tiles(x, Tile(64, 2, 2), InterpretGPUParams()))(x)
    mean, square = jnp.sum(sums, 1).swapaxes(0, 1) / 512
    chex.assert_trees_all_close((mean[:, None], square[:, None]), with_xla(x, (-2,)), rtol=1e-5, atol=1e-5)
