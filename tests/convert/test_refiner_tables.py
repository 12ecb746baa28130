"""The Refiner's table has a row for every tensor in the manifest of the published file, and loses none."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from st2v_jax.convert.engine import ConversionError, convert, export
from st2v_jax.convert.refiner_tables import refiner
from st2v_jax.models import build
from st2v_jax.models.unet3d import UNet3D, UNetConfig

RELEASED = build.ModelConfig().refiner.unet
MANIFEST = json.loads((Path(__file__).parents[1] / 'manifests' / 'vid2vid_unet.json').read_text())


def tensors():
    """The file's tensors, as arrays that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in MANIFEST['tensors'].items()}


def test_every_tensor_of_the_file_is_used_once_and_every_parameter_filled():
    network = build.refiner(build.ModelConfig())
    assert build.parameter_count(network.abstract) == MANIFEST['n_elements']
    # `convert` raises where a name is used twice or not at all, a shape differs, or a parameter stays empty
    params = convert(tensors(), refiner(RELEASED), network.abstract)
    shapes = jax.tree.map(lambda leaf: leaf.shape, (params, network.abstract))
    assert shapes[0] == shapes[1]


def test_names_spelt_right_are_not_the_files():
    spelt = {name.replace('temopral', 'temporal'): value for name, value in tensors().items()}
    with pytest.raises(ConversionError, match='temporal_conv.conv1.0.weight: 0 rows of the table match'):
        convert(spelt, refiner(RELEASED), build.network(UNet3D, RELEASED).abstract)


@pytest.mark.parametrize('attention', [(True, True, False), (False, True, True)])
def test_import_undoes_export_bit_for_bit(attention):
    config = UNetConfig((8, 8, 16), attention, blocks=1, head_size=4, input_heads=3, context_width=6, groups=2)
    network, table = build.network(UNet3D, config), refiner(config)
    params = build.init(jax.random.key(0), network)
    jax.tree.map(np.testing.assert_array_equal, convert(export(params, table), table, network.abstract), params)
