"""Autoencoder (g8, g8b), text towers (g9, g9b) and image tower (g10)."""

import einops
import jax
import jax.numpy as jnp
import numpy as np

from golden_cases import arrays, config, relative, weights
from golden_cases import network as golden_network
from st2v_jax.convert import encoder_tables as tables
from st2v_jax.convert.engine import Under, convert
from st2v_jax.models import clip, vae

CHANNELS_LAST = 'b c h w -> b h w c'
CHANNELS_FIRST = 'b h w c -> b c h w'


def check_g8(case):
    """AutoencoderKL under the names of diffusers."""
    c = config(case)
    size = vae.VaeConfig(
        block_channels=tuple(c['block_out_channels']),
        layers_per_block=c['layers_per_block'],
        latent_channels=c['latent_channels'],
        groups=c['norm_num_groups'],
        norm_epsilon=c['norm_eps'],
    )
    return _autoencoder(case, size, tables.AUTOENCODER, weights(case))


def check_g8b(case):
    """AutoencoderKL under the names of latent diffusion."""
    c = config(case)
    first_stage = c['ddconfig']
    size = vae.VaeConfig(
        block_channels=tuple(first_stage['ch'] * factor for factor in first_stage['ch_mult']),
        layers_per_block=first_stage['num_res_blocks'],
        latent_channels=c['embed_dim'],
        groups=c['norm_num_groups'],
    )
    return _autoencoder(case, size, tables.autoencoder_ldm(size), Under(weights(case), 'first_stage_model.'))


def _autoencoder(case, size, table, tensors):
    network = golden_network(vae.Autoencoder, size)
    params = convert(tensors, table, network.abstract)
    io = arrays(case)
    image, latent = (jnp.asarray(einops.rearrange(io[name], CHANNELS_LAST)) for name in ('image', 'latent'))
    mean, logvar = jax.jit(lambda params, image: network(params, image, method='encode'))(params, image)
    decoded = jax.jit(lambda params, latent: network(params, latent, method='decode'))(params, latent)
    ours = {'mean': mean, 'logvar': logvar, 'decoded': decoded}
    return {name: (relative(einops.rearrange(a, CHANNELS_FIRST), io[name]), 2e-5) for name, a in ours.items()}


def check_g9(case):
    """CLIPTextModel's last hidden state."""
    c = config(case)
    size = clip.TextConfig(
        vocab_size=c['vocab_size'],
        width=c['hidden_size'],
        layers=c['num_hidden_layers'],
        heads=c['num_attention_heads'],
        mlp_width=c['intermediate_size'],
        max_tokens=c['max_position_embeddings'],
        activation=c['hidden_act'],
        norm_epsilon=c['layer_norm_eps'],
    )
    io = arrays(case)
    states = _text(size, tables.text(size), weights(case), io['input_ids'])
    return {'last_hidden_state': (relative(states, io['last_hidden_state']), 2e-5)}


def check_g9b(case):
    """open_clip's text tower up to its penultimate block, then the final norm."""
    c, tensors = config(case), weights(case)
    mlp_width, _ = tensors['transformer.resblocks.0.mlp.c_fc.weight'].shape
    size = clip.TextConfig(
        vocab_size=c['vocab_size'],
        width=c['width'],
        layers=c['layers'] - 1,
        heads=c['heads'],
        mlp_width=mlp_width,
        max_tokens=c['context_length'],
    )
    io = arrays(case)
    return {'out': (relative(_text(size, tables.text_open_clip(size), tensors, io['tokens']), io['out']), 2e-5)}


def _text(size, table, tensors, ids):
    network = golden_network(clip.TextTower, size)
    return jax.jit(network.__call__)(convert(tensors, table, network.abstract), ids.astype(np.int32))


def check_g10(case):
    """Preprocessing and embedding of images, and the embedding of the grey image that stands for no anchor."""
    c, io = config(case), arrays(case)
    size = clip.ImageConfig(
        image_size=c['image_size'],
        patch=c['patch_size'],
        width=c['width'],
        layers=c['layers'],
        heads=c['heads'],
        mlp_width=int(c['width'] * c['mlp_ratio']),
        embed_dim=c['embed_dim'],
    )
    network = golden_network(clip.ImageTower, size)
    params = convert(Under(weights(case), 'image_encoder.model.'), tables.IMAGE_OPEN_CLIP, network.abstract)

    def seen(images):
        return clip.preprocess(einops.rearrange(images, CHANNELS_LAST), size.image_size)

    @jax.jit
    def embed(images):
        return network(params, seen(images))

    images, big = (io[name].astype(np.float32) / 127.5 - 1 for name in ('image_u8', 'big_u8'))
    ours = {
        'preprocessed_item0': (einops.rearrange(seen(images[:1]), CHANNELS_FIRST), 3e-5),
        'big_preprocessed': (einops.rearrange(seen(big), CHANNELS_FIRST), 3e-5),
        'embedding': (embed(images), 5e-5),
        'embedding_of_zero_image': (embed(np.zeros_like(images[:1])), 5e-5),
    }
    return {name: (relative(a, io[name]), tolerance) for name, (a, tolerance) in ours.items()}
