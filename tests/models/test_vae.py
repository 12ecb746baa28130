"""Promises of the frame-wise autoencoder: sizes of the release, shapes, separate frames, diffusers' numbers."""

import einops
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.convert import encoder_tables as tables
from st2v_jax.convert.engine import convert, export
from st2v_jax.models import build, vae

SMALL = vae.VaeConfig(block_channels=(8, 16, 16), layers_per_block=1, groups=4)


@pytest.fixture(scope='module')
def network():
    return build.network(vae.Autoencoder, SMALL)


@pytest.fixture(scope='module')
def encode(network):
    return jax.jit(lambda params, images: network(params, images, method='encode'))


@pytest.fixture(scope='module')
def decode(network):
    return jax.jit(lambda params, latents: network(params, latents, method='decode'))


@pytest.fixture(scope='module')
def params(network):
    rng = np.random.default_rng(0)
    fresh = build.init(jax.random.key(0), network)
    return jax.tree.map(lambda a: a + 0.1 * rng.standard_normal(a.shape).astype(np.float32), fresh)


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(1).uniform(-1, 1, (3, 16, 24, 3)).astype(np.float32)


def test_released_size():
    network = build.network(vae.Autoencoder, vae.VaeConfig())
    assert build.parameter_count(network.abstract) == 83_653_863
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    mean, logvar = jax.eval_shape(lambda params, x: network(params, x, method='encode'), network.abstract, images)
    assert mean.shape == logvar.shape == (2, 32, 32, 4)
    decoded = jax.eval_shape(lambda params, x: network(params, x, method='decode'), network.abstract, mean)
    assert decoded.shape == images.shape


def test_frames_do_not_see_each_other(encode, decode, params, images):
    other = np.concatenate([-images[:1], images[1:2], images[:1]])
    mean, _ = encode(params, images)
    np.testing.assert_allclose(mean[1], encode(params, other)[0][1], atol=1e-5)
    np.testing.assert_allclose(decode(params, mean)[1], decode(params, 2 * mean.at[1].divide(2))[1], atol=1e-5)


def test_a_fresh_autoencoder_passes_a_signal_on(network, encode, decode, images):
    # build.init starts some layers at zero; in an autoencoder, training could not start from there.
    fresh = build.init(jax.random.key(0), network)
    mean, _ = encode(fresh, images)
    assert np.std(mean) > 0.1
    assert np.std(decode(fresh, mean)) > 0.1


def test_log_variances_stay_in_their_range(encode, params, images):
    for bias in (-1e3, 1e3):
        far = {**params, 'quant_conv': jax.tree.map(lambda a, bias=bias: a + bias, params['quant_conv'])}
        _, logvar = encode(far, images)
        assert np.min(logvar) >= -30 and np.max(logvar) <= 20


def test_half_precision_returns_float32(encode, params, images):
    coarse = build.network(vae.Autoencoder, SMALL, dtype=jnp.bfloat16)
    mean, logvar = jax.jit(lambda params, images: coarse(params, images, method='encode'))(params, images)
    decoded = jax.eval_shape(lambda params, latents: coarse(params, latents, method='decode'), params, mean)
    assert mean.dtype == logvar.dtype == decoded.dtype == jnp.float32
    exact, _ = encode(params, images)
    assert np.linalg.norm(mean - exact) < 0.05 * np.linalg.norm(exact)


def test_says_what_does_not_fit(network, params):
    with pytest.raises(ValueError, match='16x18 pixels: height and width must be multiples of 4'):
        network(params, np.zeros((1, 16, 18, 3), np.float32), method='encode')
    with pytest.raises(ValueError, match='not multiples of groups=32'):
        vae.VaeConfig(block_channels=(48, 64))


@pytest.mark.parity
@pytest.mark.filterwarnings('ignore')
def test_gives_what_diffusers_gives(network, encode, decode, params, images):
    torch = pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    theirs = diffusers.AutoencoderKL(
        block_out_channels=SMALL.block_channels,
        down_block_types=['DownEncoderBlock2D'] * 3,
        up_block_types=['UpDecoderBlock2D'] * 3,
        layers_per_block=SMALL.layers_per_block,
        norm_num_groups=SMALL.groups,
    ).eval()
    theirs.load_state_dict({name: torch.tensor(value) for name, value in export(params, tables.AUTOENCODER).items()})
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    returned = convert(state, tables.AUTOENCODER, network.abstract)
    jax.tree.map(np.testing.assert_array_equal, returned, params)

    mean, logvar = encode(params, images)
    decoded = decode(params, mean)
    first = lambda a: torch.tensor(einops.rearrange(np.asarray(a), 'n h w c -> n c h w'))
    with torch.no_grad():
        posterior = theirs.encode(first(images)).latent_dist
        for ours, expected in (
            (mean, posterior.mean),
            (logvar, posterior.logvar),
            (decoded, theirs.decode(first(mean)).sample),
        ):
            np.testing.assert_allclose(first(ours), expected, atol=1e-5, rtol=1e-4)
