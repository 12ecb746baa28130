"""Promises of the ablation models: they start as the base model, and see only the frames that are given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.models import build
from st2v_jax.models.ablations import FUSIONS, remembered
from st2v_jax.models.cam import CamConfig
from st2v_jax.models.layers import Conv

pytestmark = pytest.mark.usefixtures('unoptimised')
F, M, SIDE = 6, 3, 32  # frames of a chunk, of which the first M are given; pixels
ABLATIONS = FUSIONS[1:]


def encode(frames):
    """In place of the autoencoder: every eighth pixel, and its red value a second time."""
    return jnp.concatenate([frames, frames[..., :1]], axis=-1)[..., ::8, ::8, :]


@pytest.fixture(scope='module')
def networks(tiny_config):
    """{fusion: (network, fresh parameters with a trained UNet)}, small and without APM."""
    made = {}
    for fusion in ABLATIONS:
        config = dataclasses.replace(tiny_config, cam=dataclasses.replace(tiny_config.cam, fusion=fusion), apm=None)
        network = build.denoiser(config)
        params = build.init(jax.random.key(0), network)
        params['unet'] = perturbed(params['unet'])
        made[fusion] = jax.jit(lambda params, *given, network=network: run(network, params, *given)), params
    return made


def run(network, params, x, text, memory=None):
    condition = network(params, text, memory, method='condition')
    return network(params, x, jnp.array([3, 700]), condition)


def perturbed(params):
    random = np.random.default_rng(7)
    return jax.tree.map(lambda a: a + 0.1 * random.standard_normal(a.shape, np.float32), params)


@pytest.fixture(scope='module')
def inputs():
    normal = lambda *shape: np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)
    return normal(2, F, 4, 4, 4), normal(2, 5, 16), normal(2, F, SIDE, SIDE, 3)


@pytest.mark.parametrize('fusion', ABLATIONS)
def test_an_untrained_memory_leaves_the_base_model_as_it_was(fusion, networks, inputs):
    network, params = networks[fusion]
    x, text, frames = inputs
    memory = remembered(fusion, frames[:, :M], length=F, encode=encode)
    np.testing.assert_allclose(network(params, x, text), network(params, x, text, memory), atol=1e-5)


@pytest.mark.parametrize('fusion', ABLATIONS)
def test_a_trained_memory_sees_the_given_frames_and_the_mask(fusion, networks, inputs):
    network, params = networks[fusion]
    x, text, frames = inputs
    params = perturbed(params)
    mask = np.array([[True, False, True, False, False, False]] * 2)
    see = lambda frames, mask: network(params, x, text, remembered(fusion, frames, length=F, encode=encode, mask=mask))
    before = see(frames, mask)
    for changed, seen in ((2, True), (1, False)):
        other = frames.copy()
        other[:, changed] += 1
        assert (np.abs(see(other, mask) - before).max() > 1e-5) == seen
    black = np.zeros_like(frames)  # a black frame that is given is not a missing frame
    assert np.abs(see(black, mask) - see(black, np.zeros_like(mask))).max() > 1e-5


@pytest.mark.parametrize('fusion', ABLATIONS)
def test_the_first_frames_alone_are_a_mask_of_the_first_frames(fusion, inputs):
    frames = inputs[2]
    short = remembered(fusion, frames[:, :M], length=F, encode=encode)
    long = remembered(fusion, frames, length=F, encode=encode, mask=np.arange(F)[None].repeat(2, 0) < M)
    np.testing.assert_array_equal(short, long)
    side = SIDE if fusion == 'addition' else SIDE // 8
    assert short.shape == (2, F, side, side, 4 if fusion == 'addition' else 5)
    np.testing.assert_array_equal(short[..., -1].mean((2, 3)), [[1, 1, 1, 0, 0, 0]] * 2)


def test_cam_is_given_the_frames_themselves(inputs):
    assert remembered('attention', inputs[2], length=F, encode=None) is inputs[2]


def test_conc_cond_is_a_first_convolution_of_more_channels(networks, inputs, tiny_config):
    _, params = networks['concatenation']
    params = perturbed(params)
    x, _, frames = inputs
    given = remembered('concatenation', frames[:, :M], length=F, encode=encode)
    own, more = params['unet']['encoder']['conv_in'], params['cam']['conv_in']['kernel']

    def convolve(x, kernel, bias=0):
        conv = build.network(Conv, x.shape[-1], kernel.shape[-1], (3, 3))
        return conv({'kernel': kernel, 'bias': bias + np.zeros(kernel.shape[-1], np.float32)}, x)

    one = convolve(jnp.concatenate([x, given], -1), np.concatenate([own['kernel'], more], -2), own['bias'])
    np.testing.assert_allclose(convolve(x, own['kernel'], own['bias']) + convolve(given, more), one, atol=1e-5)


def test_add_cond_starts_with_cams_copy_and_conc_cond_without(networks):
    _, params = networks['addition']
    copied = build.copy_encoder(params)['cam']['extractor']
    jax.tree.map(np.testing.assert_array_equal, copied, params['unet']['encoder'])
    _, params = networks['concatenation']
    assert build.copy_encoder(params) is params and set(params['cam']) == {'conv_in'}


def test_no_apm_is_a_config(tiny_config):
    config = dataclasses.replace(tiny_config, apm=None)
    assert set(build.denoiser(config).abstract) == {'unet', 'cam'}
    assert build.ModelConfig.from_dict(config.to_dict()) == config


def test_an_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match="fusion is one of .*, not 'sum'"):
        CamConfig(fusion='sum')
