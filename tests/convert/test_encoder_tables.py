"""The tables of the encoders have a row for every tensor in the manifests of the published files, and lose none."""

import json
from pathlib import Path

import golden_cases
import jax
import numpy as np
import pytest

from st2v_jax.convert import encoder_tables as tables
from st2v_jax.convert.engine import Under, convert, export
from st2v_jax.models import build
from st2v_jax.models.clip import ImageConfig, ImageTower, TextConfig, TextTower
from st2v_jax.models.vae import Autoencoder, VaeConfig

FILES = Path(__file__).parents[1] / 'manifests'
PUBLISHED = {  # id: manifest, prefix, table, module, config
    'vae': ('ms17b_vae', '', tables.AUTOENCODER, Autoencoder, VaeConfig()),
    'vae of the streaming file': ('streaming_t2v_ckpt', 'vae.', tables.AUTOENCODER, Autoencoder, VaeConfig()),
    'first stage': (
        'vid2vid_vae_first_stage', 'first_stage_model.', tables.autoencoder_ldm(VaeConfig()), Autoencoder, VaeConfig()
    ),
    'text': ('ms17b_text_encoder', '', tables.text(TextConfig()), TextTower, TextConfig()),
    'text of the streaming file': (
        'streaming_t2v_ckpt', 'text_encoder.', tables.text(TextConfig()), TextTower, TextConfig()
    ),
    'text of open_clip': (
        'open_clip_pytorch_model', '', tables.text_open_clip(TextConfig()), TextTower, TextConfig()
    ),
    'image of open_clip': ('open_clip_pytorch_model', '', tables.IMAGE_OPEN_CLIP, ImageTower, ImageConfig()),
    'image of the streaming file': (
        'streaming_t2v_ckpt', 'image_encoder.model.', tables.IMAGE_OPEN_CLIP, ImageTower, ImageConfig()
    ),
}  # fmt: skip


def manifest(name):
    """The file's tensors, as arrays that take no memory."""
    listed = json.loads((FILES / f'{name}.json').read_text())
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in listed['tensors'].items()}


@pytest.mark.parametrize('name', PUBLISHED)
def test_manifest_fills_the_released_model(name):
    file, prefix, table, module, config = PUBLISHED[name]
    network = build.network(module, config)
    params = convert(Under(manifest(file), prefix), table, network.abstract)
    shapes = jax.tree.map(lambda a: a.shape, (params, network.abstract))
    assert shapes[0] == shapes[1]


def test_manifest_of_the_vae_under_its_older_names():
    listed, tensors = json.loads((FILES / 'ms17b_vae.json').read_text()), manifest('ms17b_vae')
    older = {listed['possible_legacy_on_disk_names'].get(name, name): value for name, value in tensors.items()}
    assert older.keys() != tensors.keys()
    convert(older, tables.AUTOENCODER, build.network(Autoencoder, VaeConfig()).abstract)


def test_manifest_of_the_text_encoder_with_the_buffer_of_older_files():
    extra = {'text_model.embeddings.position_ids': np.zeros((1, 77))}
    network = build.network(TextTower, TextConfig())
    convert(manifest('ms17b_text_encoder') | extra, tables.text(TextConfig()), network.abstract)


def small(embed_dim):
    """id: (table, module, config) of small networks, for text towers with this projection."""
    vae = VaeConfig((4, 8, 8), layers_per_block=1, groups=2)
    text = TextConfig(vocab_size=7, width=8, layers=2, heads=2, mlp_width=12, max_tokens=5, embed_dim=embed_dim)
    image = ImageConfig(image_size=8, patch=4, width=8, layers=2, heads=2, mlp_width=12, embed_dim=3)
    return {
        'vae': (tables.AUTOENCODER, Autoencoder, vae),
        'vae of ldm': (tables.autoencoder_ldm(vae), Autoencoder, vae),
        'text': (tables.text(text), TextTower, text),
        'text of open_clip': (tables.text_open_clip(text), TextTower, text),
        'image': (tables.IMAGE, ImageTower, image),
        'image of open_clip': (tables.IMAGE_OPEN_CLIP, ImageTower, image),
    }


@pytest.mark.parametrize('embed_dim', [None, 3])
@pytest.mark.parametrize('name', small(None))
def test_import_undoes_export_bit_for_bit(name, embed_dim):
    table, module, config = small(embed_dim)[name]
    network = build.network(module, config)
    params = build.init(jax.random.key(0), network)
    jax.tree.map(np.testing.assert_array_equal, convert(export(params, table), table, network.abstract), params)


def test_export_restores_a_published_file():
    # The recorded tower has one more block than is used, a projection and a temperature.
    case = Path(golden_cases.__file__).parents[1] / 'golden' / 'g9b_openclip_text'
    tensors, c = golden_cases.weights(case), golden_cases.config(case)
    size = TextConfig(c['vocab_size'], c['width'], c['layers'] - 1, c['heads'], 4 * c['width'], embed_dim=32)
    table = tables.text_open_clip(size)
    restored = export(convert(tensors, table, build.network(TextTower, size).abstract), table)
    left_out = {name for name in tensors if name.startswith('transformer.resblocks.2.')} | {'logit_scale'}
    assert restored.keys() == tensors.keys() - left_out
    for name, value in restored.items():
        np.testing.assert_array_equal(value, tensors[name], name)
