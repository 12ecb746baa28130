"""The Refiner: its UNet (g6), its noise levels, guidance, solver and randomized blending (g7)."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from golden_cases import arrays, config, relative, weights
from golden_cases import network as golden_network
from golden_cases.unet import ours
from st2v_jax.convert.engine import convert
from st2v_jax.convert.refiner_tables import refiner
from st2v_jax.diffusion import predict, sampling
from st2v_jax.diffusion.guidance import text_guidance
from st2v_jax.diffusion.log_snr import RefinerProcess, refiner_levels, sdedit_levels
from st2v_jax.diffusion.schedule import Level
from st2v_jax.models.unet3d import UNet3D, UNetConfig
from st2v_jax.refinement import blend

# The settings of our sampler; a case recorded with others has another algorithm.
OURS = {
    'prediction_type': 'v',
    'solver': 'dpmpp_2m_sde',
    'discretization': 'trailing',
    'discard_penultimate_step': True,
}


def check_g6(case):
    """The Vid2Vid UNet on latents of heights that it accepts."""
    c, io = config(case), arrays(case)
    levels = len(c['dim_mult'])
    if not c['temporal_attention'] or len(c['attn_scales']) > levels:
        raise ValueError(f'the Refiner attends over time, on at most {levels} levels; the case says {c}')
    size = UNetConfig(
        channels=tuple(c['dim'] * factor for factor in c['dim_mult']),
        attention=tuple(0.5**level in c['attn_scales'] for level in range(levels)),
        blocks=c['num_res_blocks'],
        head_size=c['head_dim'],
        input_heads=c['num_heads'],
        context_width=c['context_dim'],
        groups=c['norm_num_groups'],
        in_channels=c['in_dim'],
        out_channels=c['out_dim'],
        padding=(2, 1),
    )
    network = golden_network(UNet3D, size)
    params = convert(weights(case), refiner(size), network.abstract)

    @jax.jit
    def run(params, x, t, text):
        return network(params, x, t, network(params, text, method='keys_values'))

    errors = {}
    for name in sorted(key.removesuffix('_x') for key in io if key.endswith('_x')):
        x, t, text = (io[f'{name}_{what}'] for what in 'xty')
        errors[name] = relative(run(params, ours(x), t, text), ours(io[f'{name}_out'])), 1e-4
    return errors


def check_g7(case):
    """Tables, guidance, forward noising, and whole refinements of one chunk and of several, with a toy model of v."""
    c, io = config(case), arrays(case)
    if different := {name: c[name] for name, value in OURS.items() if c[name] != value}:
        raise ValueError(f'the case was recorded with {different}, which is not how the Refiner samples')
    of_schedule = c['schedule']
    process = RefinerProcess(
        of_schedule['n'], of_schedule['scale_min'], of_schedule['scale_max'], of_schedule['logsnr_max']
    )
    table = refiner_levels(process)
    errors = {
        'sigmas_vp': (relative(table.sigma, io['sigmas_vp']), 1e-5),
        'alphas_vp': (relative(table.alpha, io['alphas_vp']), 1e-5),
    }

    def network(x, t):
        text = (io['toy_y_uncond'], io['toy_y_cond'])
        toy = lambda x, y: (
            jnp.einsum('cd,...d->...c', io['toy_A'], x)
            + io['toy_m'] * x.mean(1, keepdims=True)
            + y * (1 + t[0].astype(jnp.float32) / process.steps)
        )
        return jnp.concatenate([toy(x, y) for y in text])

    guided = text_guidance(c['guide_scale'], c['guide_rescale'])(network)
    denoise = predict.at_entries(predict.denoiser(guided, 'v'), table)

    for i, t in enumerate(io['denoise_t']):
        xt, level = ours(io['denoise_xt'][i : i + 1]), Level(*(leaf[t] for leaf in table))
        x0 = denoise(xt, level)
        for name, value in {'x0': x0, 'eps': predict.noise_from_x0(xt, x0, level)}.items():
            errors[f'denoise_{name} at {t}'] = relative(value, ours(io[f'denoise_{name}'][i : i + 1])), 1e-5
    at = Level(*(leaf[io['diffuse_t']] for leaf in table))
    noised = predict.add_noise(ours(io['diffuse_x0']), ours(io['diffuse_noise']), at)
    errors['diffuse_xt'] = relative(noised, ours(io['diffuse_xt'])), 1e-5

    for name, run in json.loads((case / 'config.json').read_text())['cases'].items():
        mine = {key.removeprefix(f'{name}_'): value for key, value in io.items() if key.startswith(f'{name}_')}
        errors |= {f'{name} {what}': error for what, error in _refinement(run, mine, table, denoise).items()}
    return errors


def _refinement(run, io, table, denoise):
    levels = sdedit_levels(table, run['steps'], run['t_max'])
    plan = blend.Plan(run['frames'], run['chunk_size'], run['overlap_size'])
    ratio = np.divide(levels.sigma, levels.alpha)
    errors = {
        'sigmas': (relative(ratio, io['sigmas']), 1e-5),
        'model_t': (relative(levels.t[:-1], io['model_t_rounded']), 0),
    }
    noise = jnp.stack([ours(one) for one in io['noise']])
    noise = jnp.concatenate([noise, jnp.zeros_like(noise[:1])])  # the last step asks for noise and does not use it
    left = np.pad(io['offsets'].reshape(run['steps'], 1, plan.count - 1), ((0, 0), (0, 0), (1, 0)))
    one_text = lambda x, level, texts: denoise(x, level)
    predicted = lambda x, level, i: blend.predict(one_text, plan, x, level, jnp.asarray(left)[i], group=2)
    step = blend.stepper(predicted, lambda i: noise[i])

    @jax.jit
    def trajectory(x):
        def keep(now, inputs):
            nxt = step(now, inputs)
            return nxt, (now.x, nxt.x0)

        end, (seen, x0) = jax.lax.scan(keep, sampling.begin(x, levels), sampling.steps(levels))
        return end.x, seen, x0[np.array([0, 1, -1])]

    end, seen, x0 = trajectory(ours(io['init']) * levels.sigma[0])
    errors['out'] = relative(end, ours(io['out'])), 2e-5
    for i, theirs in enumerate(io['model_inputs']):
        errors[f'model_inputs {i}'] = relative(seen[i], ours(theirs)), 2e-5
    for which, value, theirs in zip(('0', '1', 'last'), x0, io['x0_first_last'], strict=True):
        errors[f'x0 of step {which}'] = relative(value, ours(theirs)), 2e-5
    return errors
