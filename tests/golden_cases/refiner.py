"""The Refiner: its UNet (g6)."""

import jax

from golden_cases import arrays, config, relative, weights
from golden_cases.unet import ours
from st2v_jax.convert.engine import convert
from st2v_jax.convert.refiner_tables import refiner
from st2v_jax.models import build
from st2v_jax.models.unet3d import UNet3D, UNetConfig


def check_g6(case):
    """The Vid2Vid UNet on latents of the heights it accepts."""
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
    network = build.network(UNet3D, size)
    params = convert(weights(case), refiner(size), network.abstract)

    @jax.jit
    def run(params, x, t, text):
        return network(params, x, t, network(params, text, method='keys_values'))

    errors = {}
    for name in sorted(key.removesuffix('_x') for key in io if key.endswith('_x')):
        x, t, text = (io[f'{name}_{what}'] for what in 'xty')
        errors[name] = relative(run(params, ours(x), t, text), ours(io[f'{name}_out'])), 1e-4
    return errors
