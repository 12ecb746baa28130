"""Video-LDM UNet (g1), CAM (g2, g3), APM (g4) and the whole streaming denoiser with its DDIM chains (g5)."""

import json
from functools import partial

import einops
import jax
import jax.numpy as jnp
import numpy as np

from golden_cases import arrays, config, relative, weights
from golden_cases import network as golden_network
from st2v_jax.convert import unet_tables as tables
from st2v_jax.convert.engine import Table, Under, convert
from st2v_jax.diffusion import predict, sampling, schedule
from st2v_jax.diffusion.guidance import text_with_anchor
from st2v_jax.models.apm import AnchorTokens, ApmConfig, ContextMixer
from st2v_jax.models.attention import Attention
from st2v_jax.models.cam import Cam, CamConfig, FeatureInjector
from st2v_jax.models.denoiser import StreamingDenoiser
from st2v_jax.models.unet3d import UNet3D, UNetConfig

VIDEO = 'b c f h w -> b f h w c'


def ours(array, pattern=VIDEO, **sizes):
    return jnp.asarray(einops.rearrange(array, pattern, **sizes))


def unet_config(c):
    """The UNet of a case; if it does not list block types, only the last level lacks attention, as released."""
    levels = len(c['block_out_channels'])
    attention = tuple(level < levels - 1 for level in range(levels))
    if 'down_block_types' in c:
        attention = tuple('CrossAttn' in kind for kind in c['down_block_types'])
    return UNetConfig(
        channels=tuple(c['block_out_channels']),
        attention=attention,
        blocks=c['layers_per_block'],
        head_size=c['attention_head_dim'],
        context_width=c['cross_attention_dim'],
        groups=c['norm_num_groups'],
        in_channels=c['in_channels'],
        out_channels=c['out_channels'],
    )


def streaming(case):
    """(network, parameters, config) of the streaming denoiser in `case`, through the release's four prefixes."""
    c = config(case)
    size = unet_config(c)
    cam = CamConfig(tuple(c['conditioning_embedding_out_channels']), head_size=c['cam_attention_head_dim'])
    image_width = weights(case)['resampler.context_embedding.0.weight'].shape[1]
    apm = ApmConfig(image_width, c['resampler']['inner_dim'], c['image_tokens'], c['text_tokens'])
    network = golden_network(StreamingDenoiser, size, cam, apm)
    tensors, abstract = weights(case), network.abstract
    base = Under(tensors, 'base_model.')
    of_base = {
        'unet': abstract['unet'],
        'apm': {'mixers': abstract['apm']['mixers']},
        'cam': {name: abstract['cam'][name] for name in ('injectors', 'middle_injector')},
    }
    of_extractor = {'cam': {name: abstract['cam'][name] for name in ('extractor', 'encoder')}}
    params = convert(base, tables.base_model(size), of_base)
    extractor = convert(Under(tensors, 'unet.'), tables.EXTRACTOR, of_extractor)
    anchor = convert(Under(tensors, 'resampler.'), tables.ANCHOR, {'apm': {'anchor': abstract['apm']['anchor']}})
    params['cam'] |= extractor['cam']
    params['apm'] |= anchor['apm']
    return network, params, c


def check_g1(case):
    """UNet3DConditionModel: the usual size, a size that the levels do not divide, a single frame."""
    network = golden_network(UNet3D, unet_config(config(case)))
    params = convert(weights(case), tables.UNET, {'unet': network.abstract})['unet']

    @jax.jit
    def run(params, x, t, text):
        layers = network(params, text, method='keys_values')
        return network(params, x, t, layers)

    io = arrays(case)
    errors = {}
    for name in sorted(key.removesuffix('_sample') for key in io if key.endswith('_sample')):
        sample, t, text = (io[f'{name}_{what}'] for what in ('sample', 'timestep', 'encoder_hidden_states'))
        out = run(params, ours(sample), t, text)
        errors[name] = relative(out, ours(io[f'{name}_out'])), 1e-4
    return errors


def check_g2(case):
    """CAM's extractor: a feature of 8 frames for every skip connection and for the middle."""
    source = case.parent / json.loads((case / 'config.json').read_text())['weights'].split('../')[1].split('/')[0]
    _, params, c = streaming(source)
    io = arrays(case)
    cam = CamConfig(tuple(c['conditioning_embedding_out_channels']), head_size=c['cam_attention_head_dim'])
    network = golden_network(Cam, cam, unet_config(c))

    @jax.jit
    def run(params, x, t, text, frames):
        keys_values = network(params, text, method='keys_values')
        return network(params, x, t, keys_values, network(params, frames, method='encode'), method='extract')

    batch = io['sample'].shape[0]
    frames = ours(io['controlnet_cond_u8'].astype(np.float32) / 127.5 - 1, '(b f) c h w -> b f h w c', b=batch)
    text = io['encoder_hidden_states'][:, : c['text_tokens']]
    skips, middle = run(params['cam'], ours(io['sample']), io['timestep'], text, frames)
    features = {f'down_{i}': skip for i, skip in enumerate(skips)} | {'mid': middle}
    expected = {name for name in io if name.startswith(('down_', 'mid'))}
    if expected != set(features):
        raise ValueError(f'the case has features {sorted(expected)}, the extractor gives {sorted(features)}')
    rows = '(b f) c h w -> b f h w c'
    return {name: (relative(feature, ours(io[name], rows, b=batch)), 1e-4) for name, feature in features.items()}


def check_g3(case):
    """One injector, without its residual."""
    c, io = config(case), arrays(case)
    size = dict(head_size=c['attention_head_dim'], groups=c['norm_num_groups'])
    network = golden_network(partial(FeatureInjector, c['input_channels'], **size))
    table = Table(rows=tables.injector('merger', 'injector'))
    tensors = {f'merger.{name}': value for name, value in weights(case).items()}
    params = convert(tensors, table, {'injector': network.abstract})['injector']
    sample, conditioning, out = (ours(io[n], 'b f c h w -> b f h w c') for n in ('sample', 'conditioning', 'out'))
    added = jax.jit(network)(params, sample, conditioning) - sample
    return {'out - sample': (relative(added, out - sample), 2e-5)}


def check_g4(case):
    """APM: anchor tokens, the mixed context, and the cross-attention that reads it."""
    c, io, tensors = config(case), arrays(case), weights(case)
    width, batch = c['cross_attention_dim'], c['batch']
    text_tokens, all_tokens, _ = tensors['attn2.conv.weight'].shape
    apm = ApmConfig(width, c['resampler_inner_dim'], all_tokens - text_tokens, text_tokens)
    anchor = golden_network(AnchorTokens, apm, width)
    mixer = golden_network(ContextMixer, apm, width)
    attend = golden_network(partial(Attention, c['query_dim'], head_size=c['dim_head'], context_width=width))
    of_anchor = convert(Under(tensors, 'resampler.'), tables.ANCHOR, {'apm': {'anchor': anchor.abstract}})
    table = Table(rows=(*tables.mixer('layer', 'mixer'), *tables.attention('layer', 'attention')))
    layer = {f'layer.{name}': value for name, value in Under(tensors, 'attn2.').items()}
    of_layer = convert(layer, table, {'mixer': mixer.abstract, 'attention': attend.abstract})
    embedding = einops.reduce(io['image_emb'], '(b i) e -> b e', 'mean', b=batch)
    tokens = jax.jit(anchor)(of_anchor['apm']['anchor'], embedding)
    mixed = jax.jit(mixer)(of_layer['mixer'], io['text_embeds'], tokens)

    @jax.jit
    def cross(params, hidden, context):
        return attend(params, hidden, attend(params, context, method='keys_values'))

    hidden = ours(io['hidden_states'], '(b f) s c -> b (f s) c', b=batch)
    out = ours(io['out'], '(b f) s c -> b (f s) c', b=batch)
    results = {
        'tokens': (tokens, io['tokens']),
        'mixed_context': (mixed, io['mixed_context']),
        'out': (cross(of_layer['attention'], hidden, mixed), out),
    }
    return {name: (relative(*pair), 2e-5) for name, pair in results.items()}


def check_g5(case):
    """The whole denoiser with two guidance branches: one call, the guided prediction, DDIM chains with eta 0 and 1."""
    network, params, c = streaming(case)
    io, settings = arrays(case), json.loads((case / 'config.json').read_text())
    anchor = golden_network(
        AnchorTokens,
        ApmConfig(io['image_emb_cond'].shape[1], c['resampler']['inner_dim'], c['image_tokens'], c['text_tokens']),
        c['cross_attention_dim'],
    )
    both = {
        name: np.concatenate([io[f'{name}_uncond'], io[f'{name}_cond']])
        for name in ('text_embeds', 'image_emb', 'image_tokens')
    }
    tokens = jax.jit(anchor)(params['apm']['anchor'], both['image_emb'])
    frames = ours(io['controlnet_cond_u8'].astype(np.float32) / 127.5 - 1, 'f c h w -> 1 f h w c')
    condition = jax.jit(partial(network, texts=2, method='condition'))(params, both['text_embeds'], frames, tokens)
    run = jax.jit(network)
    branches = lambda x, t: run(params, x, t.astype(jnp.float32), condition)  # one program for all that follows
    guided = text_with_anchor(settings['guidance_scale'])(branches)

    latents, b = ours(io['initial_latents']), io['initial_latents'].shape[0]
    t = jnp.full(b, int(io['single_timestep']))
    rows = partial(ours, pattern='(b f) c h w -> b f h w c', b=b)
    single = branches(latents, t)
    errors = {
        'image_tokens': (relative(tokens, both['image_tokens']), 1e-4),
        'single_noise_pred': (relative(single, ours(io['single_noise_pred_uncond_cond'])), 1e-4),
        'guided': (relative(guided(latents, t), rows(io['single_noise_pred_guided'])), 5e-4),
    }

    schedule_of = settings['scheduler']
    process = schedule.DiffusionConfig(
        schedule_of['num_train_timesteps'],
        schedule_of['beta_start'],
        schedule_of['beta_end'],
        schedule_of['prediction_type'],
    )
    table = schedule.noise_levels(process)
    levels = schedule.ddim_levels(table, settings['num_inference_steps'])
    errors['alphas_cumprod'] = relative(np.square(table.alpha), io['alphas_cumprod_f64']), 1e-6
    errors['ddim_timesteps'] = relative(levels.t[:-1], io['ddim_timesteps']), 0
    denoise = predict.denoiser(guided, process.prediction)
    noise = jnp.stack([rows(one) for one in io['ddim_eta1_variance_noise']])
    for eta in (0.0, 1.0):
        step = sampling.stepper(denoise, solver='ddim', eta=eta, noise=lambda i: noise[i])

        trajectory = sampling.begin(latents, levels)
        for i, stored in enumerate(io[f'ddim_eta{eta:.0f}_latents']):
            trajectory = step(trajectory, jax.tree.map(lambda leaf, i=i: leaf[i], sampling.steps(levels)))
            errors[f'ddim eta {eta:.0f} step {i}'] = relative(trajectory.x, ours(stored)), 1e-3
    return errors
