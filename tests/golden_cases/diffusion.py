"""Scheduler of the first chunk (g13): DPM-Solver++(2M) around a toy model of the noise."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from golden_cases import arrays, config, relative
from st2v_jax.diffusion import predict, sampling
from st2v_jax.diffusion.schedule import DiffusionConfig, dpm_levels, noise_levels

# The settings of our solver; a case recorded with others has another algorithm.
OURS = {
    'algorithm_type': 'dpmsolver++',
    'solver_order': 2,
    'solver_type': 'midpoint',
    'lower_order_final': True,
    'timestep_spacing': 'linspace',
    'final_sigmas_type': 'zero',
    'beta_schedule': 'scaled_linear',
}


def check_g13(case):
    """Time steps and noise levels of every recorded number of steps, and the chain of the toy model."""
    c, io = config(case), arrays(case)
    if different := {name: c[name] for name, value in OURS.items() if c[name] != value}:
        raise ValueError(f'the case was recorded with {different}, which is not DPM-Solver++(2M) as released')
    process = DiffusionConfig(
        c['num_train_timesteps'], c['beta_start'], c['beta_end'], c['prediction_type'], c['rescale_betas_zero_snr']
    )
    table, errors = noise_levels(process), {}
    chain_steps = json.loads((case / 'config.json').read_text())['steps']
    for name in sorted(name for name in io if name.startswith('timesteps')):
        suffix = name.removeprefix('timesteps')
        levels = dpm_levels(table, len(io[name]))
        errors[name] = relative(levels.t[:-1], io[name]), 0
        errors[f'sigmas{suffix}'] = relative(levels.sigma / levels.alpha, io[f'sigmas{suffix}']), 1e-5

    def noise_model(x, t):
        strength = 0.5 + t.astype(jnp.float32) / 2000
        return jnp.einsum('cd,bd...,b->bc...', io['A'], x, strength)

    step = sampling.stepper(predict.denoiser(noise_model, process.prediction), solver='dpmpp_2m')
    levels = dpm_levels(table, chain_steps)

    def keep(trajectory, inputs):
        trajectory = step(trajectory, inputs)
        return trajectory, trajectory.x

    start = sampling.begin(jnp.asarray(io['x_init']), levels)
    _, chain = jax.jit(lambda start: jax.lax.scan(keep, start, sampling.steps(levels)))(start)
    for i, (ours, theirs) in enumerate(zip(np.asarray(chain), io['x_after_each_step'], strict=True)):
        errors[f'chain step {i}'] = relative(ours, theirs), 1e-5
    return errors
