"""The classes of diffusers and transformers load our exports strictly, and compute what our modules compute."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

from st2v_jax.convert.to_diffusers import export
from st2v_jax.models import build
from st2v_jax.models.clip import TextConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.weights.folder import save
from st2v_jax.weights.layout import abstract

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings('ignore')]  # torch and diffusers have many


@pytest.fixture(scope='module')
def video_ldm(tmp_path_factory):
    """(config, parameters, exported folder) of a Video-LDM with widths that the torch classes support."""
    config = tiny(
        backbone=UNetConfig((16, 32), (True, False), blocks=1, head_size=8, input_heads=8, context_width=16, groups=8),
        vae=VaeConfig((8, 16), layers_per_block=1, groups=4),
        text=TextConfig(width=16, layers=2, heads=2, mlp_width=32, activation='quick_gelu'),
    )
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.float32(np.float16(0.2 * random.standard_normal(leaf.shape))),
        abstract(config, ('unet', 'vae', 'text')),
    )
    folder = tmp_path_factory.mktemp('video_ldm')
    save(folder / 'ours', config, params, np.float32, tokenizer=Tokenizer(pad=0))
    export(folder / 'ours', folder / 'theirs')
    return config, params, folder / 'theirs'


def close(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), theirs.detach().numpy().astype(np.float64)
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) < 2e-5 * np.linalg.norm(theirs)


def strictly(kind, folder, subfolder):
    """The model loaded from a folder, in which no tensor is missing or left over."""
    model, said = kind.from_pretrained(folder, subfolder=subfolder, output_loading_info=True)
    assert not any(said.values()), said
    return model.eval()


LATENTS = [(8, 8), *(pytest.param(size, marks=pytest.mark.slow) for size in ((24, 16), (16, 24)))]  # (height, width)


@pytest.mark.parametrize('size', LATENTS, ids=str)
def test_diffusers_reads_the_unet_and_it_computes_the_same_at_every_size(video_ldm, size):
    torch, diffusers = pytest.importorskip('torch'), pytest.importorskip('diffusers')
    config, params, folder = video_ldm
    unet = strictly(diffusers.UNet3DConditionModel, folder, 'unet')
    random = np.random.default_rng(1)
    x, text = (random.standard_normal(shape, np.float32) for shape in ((1, 3, *size, 4), (1, 77, 16)))
    theirs = unet(torch.from_numpy(np.moveaxis(x, -1, 1)), 7, torch.from_numpy(text)).sample
    network = build.denoiser(dataclasses.replace(config, cam=dataclasses.replace(config.cam, head_size=8)))

    @jax.jit
    def run(params, x, text):
        return network(params, x, jnp.array([7.0]), network(params, text, method='condition'))

    with jax.default_matmul_precision('highest'):
        ours = run({'unet': params['unet']}, x, text)
    close(np.moveaxis(np.asarray(ours), -1, 1), theirs)


@pytest.mark.parametrize('size', LATENTS, ids=str)
def test_diffusers_reads_the_autoencoder_and_it_computes_the_same_at_every_size(video_ldm, size):
    torch, diffusers = pytest.importorskip('torch'), pytest.importorskip('diffusers')
    config, params, folder = video_ldm
    vae = strictly(diffusers.AutoencoderKL, folder, 'vae')
    z = np.random.default_rng(1).standard_normal((2, *size, 4), np.float32)
    theirs = vae.decode(torch.from_numpy(np.moveaxis(z, -1, 1))).sample
    with jax.default_matmul_precision('highest'):
        ours = jax.jit(partial(build.vae(config), method='decode'))(params['vae'], z)
        mean, _ = jax.jit(partial(build.vae(config), method='encode'))(params['vae'], ours)
    close(np.moveaxis(np.asarray(ours), -1, 1), theirs)
    close(np.moveaxis(np.asarray(mean), -1, 1), vae.encode(theirs).latent_dist.mean)


def test_transformers_reads_the_text_tower_and_its_tokenizer(video_ldm):
    torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
    config, params, folder = video_ldm
    text = strictly(transformers.CLIPTextModel, folder, 'text_encoder')
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, subfolder='tokenizer')
    ids = tokenizer(['a red ball'], padding='max_length', return_tensors='np')['input_ids']
    np.testing.assert_array_equal(ids, Tokenizer(pad=0).ids(['a red ball']))
    with jax.default_matmul_precision('highest'):
        close(jax.jit(build.text_tower(config))(params['text'], ids), text(torch.from_numpy(ids)).last_hidden_state)


def test_diffusers_reads_the_whole_folder(video_ldm):
    diffusers = pytest.importorskip('diffusers')
    config, _, folder = video_ldm
    pipeline = diffusers.TextToVideoSDPipeline.from_pretrained(folder)
    assert pipeline.scheduler.config.prediction_type == 'epsilon' and pipeline.tokenizer.pad_token_id == 0
    assert json.loads((folder / 'model_index.json').read_text())['_st2v_jax']['config'] == json.loads(
        json.dumps(config.to_dict())
    )
