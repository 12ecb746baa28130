"""RAFT-Large from torchvision's file, beside torchvision's own network."""

import functools
import importlib.util

import jax
import numpy as np
import pytest
import torch_files as files

from st2v_jax.convert.engine import ConversionError, export
from st2v_jax.convert.metric_tables import raft_table, read_raft
from st2v_jax.models import build
from st2v_jax.models.raft import Raft, look_up, upsampled
from st2v_jax.trees import flatten


@pytest.fixture(scope='module')
def published():
    """(tensors under torchvision's names, our parameters), random."""
    params = flatten(build.init(jax.random.key(0), build.network(Raft)))
    tensors = {name: np.ascontiguousarray(leaf, np.float32) for name, leaf in export(params, raft_table()).items()}
    return tensors | {'context_encoder.convnormrelu.1.num_batches_tracked': np.array(7)}, params


@pytest.mark.parametrize('container', ['zip', 'legacy', 'safetensors'])
def test_every_parameter_is_read_from_the_file_of_torchvision(container, published, tmp_path):
    tensors, params = published
    path = tmp_path / 'raft'
    files.safetensors(path, tensors) if container == 'safetensors' else files.checkpoint(container, path, tensors)
    found = flatten(read_raft(path))
    assert found.keys() == params.keys()
    for name, leaf in params.items():
        np.testing.assert_allclose(found[name], leaf, rtol=1e-5, atol=1e-7)


def test_a_file_of_another_network_is_refused(published, tmp_path):
    tensors = {name: leaf for name, leaf in published[0].items() if 'convgru2' not in name}
    with pytest.raises(ConversionError, match='update/grus/1/z/kernel: nothing in the checkpoint fills it'):
        read_raft(files.checkpoint('zip', tmp_path / 'raft', tensors))


def test_correlations_are_looked_up_between_pixels_and_are_zero_outside():
    plane = np.arange(12, dtype=np.float32).reshape(3, 4)  # value 4 * y + x
    at = np.array([1.5, 0.25], np.float32)
    found = np.asarray(look_up([plane[None, None, None]], at[None, None, None])).reshape(9, 9)  # [column, row]
    assert found[4, 4] == 4 * 0.25 + 1.5 and found[5, 4] == 4 * 0.25 + 2.5 and found[4, 5] == 4 * 1.25 + 1.5
    assert found[6, 4] == 0.5 * (4 * 0.25 + 3) and not found[7:].any() and not found[:, :3].any()


def test_even_flow_stays_even_when_it_is_enlarged():
    random = np.random.default_rng(0)
    scores = random.standard_normal((1, 4, 5, 576), np.float32)
    found = np.asarray(upsampled(np.tile(np.float32([1, -2]), (1, 4, 5, 1)), scores))
    np.testing.assert_allclose(found[:, 8:-8, 8:-8], np.tile(np.float32([8, -16]), (1, 16, 24, 1)), rtol=1e-5)


@pytest.fixture
def raft_large():
    """torchvision's; where its operators do not load beside this torch, two that raft does not use are stood in."""
    torch = pytest.importorskip('torch')
    if importlib.util.find_spec('torchvision') is None:
        pytest.skip('torchvision is not installed')
    try:
        from torchvision.models.optical_flow import raft_large
    except RuntimeError:
        operators = torch.library.Library('torchvision', 'FRAGMENT')
        for name in ('nms', 'qnms'):
            operators.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        from torchvision.models.optical_flow import raft_large
    return raft_large


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.usefixtures('unoptimised')
def test_flow_is_that_of_torchvision(raft_large, tmp_path):
    import torch

    torch.manual_seed(0)
    theirs = raft_large().eval()
    for name, values in theirs.state_dict().items():
        if name.endswith(('running_mean', '1.bias')):
            values.normal_(0, 0.2)
        elif name.endswith(('running_var', '1.weight')) and values.ndim == 1:
            values.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / 'raft.pth')
    images = np.random.default_rng(1).uniform(-1, 1, (2, 1, 128, 136, 3)).astype(np.float32)
    with torch.no_grad():
        *_, wanted = theirs(*torch.from_numpy(images).permute(0, 1, 4, 2, 3), num_flow_updates=3)
    wanted = wanted.permute(0, 2, 3, 1).numpy()
    found = jax.jit(functools.partial(build.network(Raft), updates=3))(read_raft(tmp_path / 'raft.pth'), *images)
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max() and wanted.std() > 0.1
