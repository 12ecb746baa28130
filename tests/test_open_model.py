"""One way to a model on disk, in our format or published: opened once, and read when asked."""

import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import st2v_jax
from st2v_jax import open_model as door
from st2v_jax.convert.to_diffusers import export
from st2v_jax.devices import compiling_for
from st2v_jax.errors import WeightsError
from st2v_jax.models.config import ModelConfig
from st2v_jax.open_model import SHIPPED, load_weights, on_device, open_model
from st2v_jax.planning.video import abstract_enhancer, abstract_model
from st2v_jax.weights import layout


class Device(NamedTuple):
    platform: str
    compute_capability: str | None = None


H100, AMD = Device('gpu', '9.0'), Device('gpu', 'gfx942')


@pytest.fixture(scope='module')
def published(tiny_folder, tmp_path_factory):
    """The tiny model under the published names. Shared: do not write into it."""
    folder = tmp_path_factory.mktemp('published')
    export(tiny_folder, folder)
    return folder


@pytest.fixture
def opened(monkeypatch):
    """[(how, what)] of everything that is opened from here on: 'find' for published files, 'read' for our folders."""
    seen = []

    def counted(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda place: (seen.append((name, place)), function(place))[1])

    counted(door, 'find')
    counted(door.ours, 'read')
    return seen


def test_a_load_opens_once(published, tiny_folder, opened):
    for how, folder in (('find', published), ('read', tiny_folder)):
        for load in (st2v_jax.load, st2v_jax.load_enhancer, abstract_model, abstract_enhancer, load_weights):
            opened.clear()
            load(folder)
            assert opened == [(how, folder)], load


def test_what_is_open_is_not_opened_again(published, opened):
    model = open_model(published)
    assert open_model(model) is model
    st2v_jax.load(model), st2v_jax.load_enhancer(model), abstract_model(model), abstract_enhancer(model)
    assert opened == [('find', published)]


def test_published_files_and_our_folder_are_the_same_model(published, tiny_folder, tiny_config):
    theirs, ours = open_model(published), open_model(tiny_folder)
    assert theirs.config == ours.config == tiny_config
    assert theirs.held == ours.held == {*layout.networks(tiny_config)}
    assert theirs.networks == ours.networks == layout.streaming(ModelConfig())
    assert theirs.refinement == ours.refinement == ('refiner', 'vae', 'text')
    assert theirs.tokenizer().to_dict() == ours.tokenizer().to_dict()
    params, expected = theirs.params(ours.held), ours.params(ours.held)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_parameters_come_as_trees_of_float32_or_as_they_are_wanted(tiny_folder, tiny_params):
    config, params = load_weights(tiny_folder)
    assert params.keys() == {*layout.streaming(config)}
    expected = {name: tiny_params[name] for name in params}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    jax.tree.map(lambda leaf, made: np.testing.assert_array_equal(leaf, np.float16(made)), params, expected)
    half = open_model(tiny_folder).params(('cam',), on_device(jnp.bfloat16))
    for leaf in jax.tree.leaves(half):
        assert isinstance(leaf, jax.Array) and leaf.dtype == (jnp.bfloat16 if leaf.ndim > 1 else jnp.float32)


@pytest.mark.parametrize(
    ('device', 'dtype', 'shape', 'order'),
    [
        (H100, jnp.bfloat16, (3, 3, 4, 8), (3, 0, 1, 2)),
        (H100, jnp.float16, (1, 3, 4, 8), (3, 0, 1, 2)),
        (H100, jnp.bfloat16, (3, 8, 8), (2, 0, 1)),  # over frames
        (H100, jnp.bfloat16, (4, 8), (0, 1)),
        (H100, jnp.float32, (3, 3, 4, 8), (0, 1, 2, 3)),
        (AMD, jnp.bfloat16, (3, 3, 4, 8), (0, 1, 2, 3)),
        (Device('cpu'), jnp.bfloat16, (3, 3, 4, 8), (0, 1, 2, 3)),
        (Device('tpu'), jnp.bfloat16, (3, 3, 4, 8), (0, 1, 2, 3)),
    ],
)
def test_kernels_lie_as_the_convolutions_of_a_device_read_them(device, dtype, shape, order):
    numbers = np.arange(np.prod(shape), dtype=np.float16).reshape(shape)
    with compiling_for(device):
        kernel = on_device(dtype)(numbers)
    assert kernel.format.layout.major_to_minor == order
    np.testing.assert_array_equal(kernel, numbers.astype(dtype))
    program = jax.jit(lambda kernel: kernel + 1).lower(kernel).as_text()
    assert ('layout' in program) == (order != tuple(range(len(shape))))  # it is compiled for kernels that lie so


def test_streaming_needs_no_refiner(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / 'streaming')
    (folder / 'refiner.safetensors').unlink()
    model = open_model(folder)
    assert model.params().keys() == {*layout.streaming(ModelConfig())}
    with pytest.raises(WeightsError, match='refiner.safetensors: missing'):
        model.params(('refiner',))
    with pytest.raises(WeightsError, match='lack the refinement stage:\n  refiner: missing'):
        _ = model.refinement


def test_what_published_files_lack_is_named(published, tmp_path):
    shutil.copytree(published / 'vae', tmp_path / 'vae')
    model = open_model(tmp_path)
    assert model.held == {'vae'} and model.params(['vae']).keys() == {'vae'}
    with pytest.raises(WeightsError, match='text: in none of the files\nunet: in none of the files'):
        model.params()
    with pytest.raises(WeightsError, match='lack the refinement stage:\n  refiner: missing'):
        _ = model.refinement


def test_what_is_not_a_model_is_named(tmp_path):
    with pytest.raises(WeightsError, match='no folder of weights .*nowhere'):
        open_model(tmp_path / 'nowhere')
    with pytest.raises(WeightsError, match='no config.json of st2v_jax, and .* holds none of the files we know'):
        open_model(tmp_path)
    (tmp_path / 'config.json').write_text('{"colour": 1}')
    with pytest.raises(WeightsError, match=r'config\.json: .*unknown key colour'):
        open_model(tmp_path)


@pytest.mark.skipif(not SHIPPED.is_dir(), reason='no trained weights in the tree yet')
def test_without_a_name_it_is_the_shipped_model():
    model = open_model()
    assert model.held >= {*model.networks, *model.refinement}
    assert model.tokenizer().size == model.config.text.vocab_size


def test_weights_that_float16_cannot_hold_are_named(tiny_folder):
    model = open_model(tiny_folder)
    shape = next(leaf.shape for leaf in jax.tree.leaves(model.params(('text',))) if leaf.ndim > 1)

    def placed(dtype, added):
        place = on_device(dtype)
        return model.params(('text',), lambda array: place(np.float32(array) + added * (array.shape == shape)))

    assert {leaf.dtype for leaf in jax.tree.leaves(placed(jnp.float16, 6e4))} == {
        jnp.dtype('float16'),
        jnp.dtype('float32'),
    }
    with pytest.raises(
        WeightsError, match=r'tiny: text/\S+: numbers beyond 65504 do not fit float16; --dtype float32$'
    ):
        placed(jnp.float16, 1e5)
    placed(jnp.bfloat16, 1e5)
