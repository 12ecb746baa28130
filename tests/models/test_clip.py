"""Promises of the CLIP towers: sizes of the release, causality, pooling, preprocessing, Flax CLIP's numbers."""

import einops
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from st2v_jax.convert import encoder_tables as tables
from st2v_jax.convert.engine import export
from st2v_jax.models import build, clip

pytestmark = pytest.mark.usefixtures('unoptimised')
TEXT = clip.TextConfig(vocab_size=30, width=16, layers=2, heads=2, mlp_width=24, max_tokens=9, embed_dim=6)
IMAGE = clip.ImageConfig(image_size=16, patch=8, width=16, layers=2, heads=2, mlp_width=24, embed_dim=6)


def tower(module, config):
    """A small tower with parameters that all matter."""
    network = build.network(module, config)
    rng = np.random.default_rng(0)
    params = build.init(jax.random.key(0), network)
    return network, jax.tree.map(lambda a: a + 0.2 * rng.standard_normal(a.shape).astype(np.float32), params)


@pytest.fixture(scope='module')
def text():
    return tower(clip.TextTower, TEXT)


@pytest.fixture(scope='module')
def image():
    return tower(clip.ImageTower, IMAGE)


@pytest.fixture(scope='module')
def ids():
    ids = np.random.default_rng(1).integers(1, TEXT.vocab_size - 1, (3, TEXT.max_tokens)).astype(np.int32)
    ids[[0, 1, 2], [8, 4, 2]] = TEXT.vocab_size - 1
    return ids


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(2).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)


def test_released_sizes():
    text = build.network(clip.TextTower, clip.TextConfig())
    image = build.network(clip.ImageTower, clip.ImageConfig())
    assert build.parameter_count(text.abstract) == 340_387_840
    assert build.parameter_count(image.abstract) == 632_076_800


def test_a_later_token_does_not_change_earlier_states(text, ids):
    network, params = text
    changed = ids.copy()
    changed[:, 5] = 0
    before, after = network(params, ids), network(params, changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before[:, 5:] - after[:, 5:]).min(-1).max() > 0


def test_text_is_pooled_at_the_end_token(text, ids):
    network, params = text
    padded = ids.copy()
    padded[1, 5:] = 0  # after the end token of the second text
    np.testing.assert_array_equal(network(params, ids, method='embed'), network(params, padded, method='embed'))


def test_half_precision_keeps_parameters_and_shapes(text, image, ids, images):
    for (exact, params), config, x in ((text, TEXT, ids), (image, IMAGE, images)):
        module = clip.TextTower if config is TEXT else clip.ImageTower
        network = build.network(module, config, dtype=jax.numpy.bfloat16)
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(network.abstract))
        coarse, fine = (jax.jit(tower.__call__)(params, x) for tower in (network, exact))
        assert coarse.dtype == jax.numpy.bfloat16
        assert np.linalg.norm(coarse - fine) < 0.03 * np.linalg.norm(fine)


def test_towers_say_what_does_not_fit(text, image):
    with pytest.raises(ValueError, match='10 tokens do not fit'):
        text[0](text[1], np.zeros((1, 10), np.int32))
    with pytest.raises(ValueError, match='24x16 do not fit'):
        image[0](image[1], np.zeros((1, 24, 16, 3), np.float32))
    with pytest.raises(ValueError, match='width=10 is not a multiple of heads=4'):
        clip.TextConfig(width=10, heads=4)
    with pytest.raises(ValueError, match='image_size=20 is not a multiple of patch=8'):
        clip.ImageConfig(image_size=20, patch=8)
    with pytest.raises(ValueError, match="'relu' is not one of"):
        clip.TextConfig(activation='relu')
    network = build.network(clip.TextTower, clip.TextConfig(vocab_size=5, width=4, layers=1, heads=1, mlp_width=4))
    with pytest.raises(ValueError, match='embed_dim=None'):
        network(build.init(jax.random.key(0), network), np.zeros((1, 3), np.int32), method='embed')


@pytest.mark.parametrize('size', [(16, 16), (37, 24), (9, 11), (16, 40)])
def test_preprocessing_keeps_a_plain_image_plain(size):
    colour = np.float32([-1, 0.25, 1])
    seen = jax.jit(clip.preprocess, static_argnums=1)(np.broadcast_to(colour, (1, *size, 3)), 16)
    assert seen.shape == (1, 16, 16, 3)
    expected = ((colour + 1) / 2 - np.float32(clip.MEAN)) / np.float32(clip.STD)
    np.testing.assert_allclose(seen, np.broadcast_to(expected, seen.shape), atol=1e-5)


@pytest.mark.parametrize('axis', [1, 2])
def test_resizing_keeps_corners_and_ramps(axis):
    # With aligned corners a ramp stays a ramp between the same ends, except for the effect of bicubic weights of -0.75.
    ramp = np.moveaxis(np.broadcast_to(np.linspace(-1, 1, 11, dtype=np.float32), (1, 3, 16, 11)), (1, 3), (3, axis))
    pixels = clip.preprocess(ramp, 16) * np.float32(clip.STD) + np.float32(clip.MEAN)
    along = np.moveaxis(pixels, axis, -1)[0, 0, 0] if axis == 1 else pixels[0, 0, :, 0]
    np.testing.assert_allclose([along[0], along[-1]], [0, 1], atol=1e-6)
    np.testing.assert_allclose(along, np.linspace(0, 1, 16), atol=0.02)


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.filterwarnings('ignore')
def test_both_towers_give_what_flax_clip_gives(text, image, ids, images, tmp_path):
    transformers = pytest.importorskip('transformers')
    if not hasattr(transformers, 'FlaxCLIPModel'):
        pytest.skip(f'transformers {transformers.__version__} has no Flax models')
    shared = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, hidden_act='gelu')
    config = transformers.CLIPConfig(
        # In the released models, eos_token_id 2 means the largest id.
        text_config=dict(shared, vocab_size=30, max_position_embeddings=9, eos_token_id=2),
        vision_config=dict(shared, image_size=16, patch_size=8),
        projection_dim=6,
    )
    config.save_pretrained(tmp_path)
    tensors = export(text[1], tables.text(TEXT)) | export(image[1], tables.IMAGE)
    tensors['logit_scale'] = np.ones((), np.float32)
    save_file(tensors, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    model = transformers.FlaxCLIPModel.from_pretrained(tmp_path)
    theirs = model(input_ids=ids, pixel_values=einops.rearrange(images, 'b h w c -> b c h w'), attention_mask=None)
    unit = lambda a: np.asarray(a) / np.linalg.norm(a, axis=-1, keepdims=True)
    ours = text[0](text[1], ids, method='embed'), image[0](image[1], images)
    np.testing.assert_allclose(text[0](text[1], ids), theirs.text_model_output.last_hidden_state, atol=2e-5)
    np.testing.assert_allclose(unit(ours[0]), theirs.text_embeds, atol=2e-6)
    np.testing.assert_allclose(unit(ours[1]), theirs.image_embeds, atol=2e-6)
