"""Milliseconds of one guided denoising step of the streaming stage, on whatever device is there.

    python benchmarks/denoise_step.py [--size released] [--json out.json] [--trace-dir DIR]

A step is what sampling does for each noise level: the denoiser (UNet with CAM and APM) on the batch of guidance
branches, guidance, and the DDIM update. Steps are chained, each starting from the last one's result, and timed in
blocks, so that the host's dispatch hides behind the device as it does when sampling. What a chunk computes once (keys
and values of the text with APM's tokens mixed in, E_cond's features) is timed apart. Parameters are random: the time
does not depend on them. FLOPs are two a multiply-add of the matrix products, convolutions and attentions in the traced
program; XLA's own count of the compiled program stands beside it where it has one. The share is of this device's rate
on one big matrix product, measured here in the same precision.
"""

import argparse
import contextlib
import datetime
import json
import math
import statistics
import sys
import time
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from st2v_jax import weights
from st2v_jax.diffusion import predict, sampling, schedule
from st2v_jax.models import build
from st2v_jax.models.apm import ApmConfig
from st2v_jax.models.cam import CamConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig

SIZES = ('released', 'small', 'tiny')
LEVELS = 50  # of the trajectory that the timed steps walk along, again and again


def model_config(size):
    """The ModelConfig of 'released', 'small' (the shipped model) or 'tiny' (for a quick look at the program itself)."""
    if size == 'released':
        return build.ModelConfig()
    if size == 'small':
        return weights.load_config(weights.SHIPPED)
    return build.ModelConfig(
        image_size=64, frames=4, memory=2,
        unet=UNetConfig(channels=(32, 64), attention=(True, False), blocks=1, head_size=16, context_width=32, groups=8),
        cam=CamConfig(conditioning_channels=(8, 8, 8, 16), head_size=16),
        apm=ApmConfig(image_width=16, inner_width=16),
        vae=VaeConfig(block_channels=(32, 32, 32, 32)),
    )


def random_parameters(abstract, dtype):
    """Parameters as sampling holds them (kernels in `dtype`, vectors in float32), made on the device.

    One program for each shape; no leaf passes through the host.
    """
    key = jax.random.key(0, impl='unsafe_rbg')

    @jax.jit(static_argnums=(1, 2))
    def normal(key, shape, dtype):
        fan_in = math.prod(shape[:-1]) if len(shape) > 1 else 100
        return (jax.random.normal(key, shape, jnp.float32) * fan_in**-0.5).astype(dtype)

    def born(path, leaf):
        if jax.tree_util.keystr(path, simple=True, separator='/').endswith('scale'):
            return jnp.ones(leaf.shape, jnp.float32)
        number = zlib.crc32(jax.tree_util.keystr(path).encode())
        return normal(jax.random.fold_in(key, number), leaf.shape, dtype if leaf.ndim > 1 else jnp.float32)

    return jax.tree.map_with_path(born, abstract)


def flops(function, *args):
    """Floating-point operations of function(*args): two a multiply-add of products, convolutions and attentions."""
    return _jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def _jaxpr_flops(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        sides = equation.invars, equation.outvars
        ins, outs = ([v.aval.shape for v in side if hasattr(v.aval, 'shape')] for side in sides)
        if name == 'dot_general':
            contracted = equation.params['dimension_numbers'][0][0]
            total += 2 * math.prod(outs[0]) * math.prod(ins[0][axis] for axis in contracted)
        elif name == 'conv_general_dilated':
            layout = equation.params['dimension_numbers'].rhs_spec
            total += 2 * math.prod(outs[0]) * math.prod(ins[1][axis] for axis in layout[1:])
        elif name.startswith('dot_product_attention'):  # cuDNN's flash attention: q k^T and its product with v
            (b, t, heads, d), s = ins[0], ins[1][1]
            total += 4 * b * t * s * heads * d
        else:
            inner = [_jaxpr_flops(sub) for value in equation.params.values() for sub in _jaxprs(value)]
            if name == 'cond':
                total += max(inner)
            else:
                total += sum(inner) * equation.params.get('length', 1)
    return total


def _jaxprs(value):
    if hasattr(value, 'eqns'):
        return [value]
    if hasattr(value, 'jaxpr'):
        return _jaxprs(value.jaxpr)
    if isinstance(value, (tuple, list)):
        return [sub for item in value for sub in _jaxprs(item)]
    return []


def block_times(step, state, inputs, *, runs, blocks):
    """Seconds a step, one number a block of `runs` chained steps, after one block of warming up.

    step(state, inputs[i]) -> state; the state may be donated.
    """
    times = []
    for _ in range(blocks + 1):
        began = time.perf_counter()
        for i in range(runs):
            state = step(state, inputs[i % len(inputs)])
        jax.block_until_ready(state)
        times.append((time.perf_counter() - began) / runs)
    return times[1:], state


def matmul_rate(n, dtype, *, blocks):
    """FLOP/s of the [n, n] x [n, n] product in `dtype`: the median block's."""
    a, b = (jax.random.normal(jax.random.key(i), (n, n), jnp.float32).astype(dtype) for i in range(2))
    product = jax.jit(lambda x, b: (x @ b * n**-0.5).astype(dtype))
    times, _ = block_times(product, a, [b], runs=10, blocks=blocks)
    return 2 * n**3 / statistics.median(times)


def guided_step(network, config, branches, scale=7.5):
    """step(params, condition, trajectory, (number, level, next level)) -> trajectory, the sampler's own step."""
    def step(params, condition, trajectory, inputs):
        def branch_network(x, t):
            return network(params, x, t, condition)
        if branches == 2:
            guided = predict.single_scale(branch_network, scale)
        else:
            guided = predict.text_and_anchor(branch_network, scale, scale)
        return sampling.stepper(predict.denoiser(guided, config.diffusion.prediction))(trajectory, inputs)
    return step


def measure(config, dtype, *, branches, runs, blocks, matmul, trace_dir=None):
    """All numbers of this page for one model config, as a JSON dict."""
    network = build.denoiser(config, dtype)
    params = random_parameters(network.abstract, dtype)
    key = jax.random.key(1)
    text = jax.random.normal(key, (branches, config.apm.text_tokens, config.unet.context_width), dtype)
    pixels = (min(branches, 2), config.memory, config.image_size, config.image_size, 3)  # one for each text
    frames = jax.random.uniform(key, pixels, dtype, -1, 1)
    anchor = jax.random.normal(key, (branches, config.apm.image_width), dtype)
    levels = schedule.sampling_levels(config.diffusion, 'ddim', min(LEVELS, config.diffusion.steps - 1))
    numbers, now, nxt = sampling.steps(levels)
    inputs = [jax.tree.map(lambda leaf, i=i: leaf[i], (numbers, now, nxt)) for i in range(len(numbers))]

    condition = jax.jit(lambda p, *given: network(p, *given, method='condition'))
    conditions = {'step': condition(params, text, frames, anchor), 'unet': condition(params, text)}
    condition_times, _ = block_times(
        lambda _, given: condition(params, *given), None, [(text, frames, anchor)], runs=runs, blocks=blocks)
    result = {'parameters': build.parameter_count(params), 'condition_ms': 1e3 * statistics.median(condition_times)}
    rate = matmul_rate(matmul, dtype, blocks=blocks)
    result |= {'matmul_size': matmul, 'matmul_tflops': rate / 1e12}

    step = guided_step(network, config, branches)
    for name, fixed in conditions.items():
        read = params if name == 'step' else {'unet': params['unet']}
        x = jax.random.normal(key, (1, *config.latent_shape), jnp.float32)
        state = sampling.begin(x, levels)
        work = flops(step, read, fixed, state, inputs[0])
        began = time.perf_counter()
        compiled = jax.jit(step, donate_argnums=2).lower(read, fixed, state, inputs[0]).compile()
        compile_seconds = time.perf_counter() - began
        chained = lambda state, inputs: compiled(read, fixed, state, inputs)
        times, state = block_times(chained, state, inputs, runs=runs, blocks=blocks)
        if trace_dir and name == 'step':
            with jax.profiler.trace(trace_dir):
                block_times(chained, state, inputs, runs=3, blocks=1)
        seconds = statistics.median(times)
        result |= {
            f'{name}_ms': 1e3 * seconds,
            f'{name}_ms_blocks': [1e3 * t for t in times],
            f'{name}_tflop': work / 1e12,
            f'{name}_tflop_xla': _xla_flops(compiled),
            f'{name}_share': work / seconds / rate,
            f'{name}_floor_ms': 1e3 * work / rate,
            f'{name}_compile_s': compile_seconds,
        }
    return result


def _xla_flops(compiled):
    """XLA's count for the compiled program in TFLOP (on a GPU it may leave library calls out), or None."""
    with contextlib.suppress(NotImplementedError):
        analysis = compiled.cost_analysis() or {}
        if analysis.get('flops', 0) > 0:
            return analysis['flops'] / 1e12
    return None


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=SIZES, default='released', help='model size (default: %(default)s)')
    parser.add_argument('--dtype', choices=('bfloat16', 'float32'), default='bfloat16')
    parser.add_argument('--branches', type=int, choices=(2, 3), default=2,
                        help='guidance branches a step: 2 as released (default), 3 for equation 12')
    parser.add_argument('--runs', type=int, default=20, help='chained steps a timed block (default: %(default)s)')
    parser.add_argument('--blocks', type=int, default=5, help='timed blocks; the median counts (default: %(default)s)')
    parser.add_argument('--matmul', type=int, help='size of the probe (default: 8192, on a CPU 1024)')
    parser.add_argument('--trace-dir', help='also write a profile of a few steps there')
    parser.add_argument('--json', help='also write the numbers to this file')
    args = parser.parse_args(argv)
    if min(args.runs, args.blocks) < 1:
        parser.error(f'--runs and --blocks are 1 or more, got {args.runs} and {args.blocks}')
    return args


def main(argv=None):
    args = arguments(argv)
    device = jax.devices()[0]
    try:
        config = model_config(args.size)
    except weights.WeightsError as error:
        print(f'denoise_step.py: {error}', file=sys.stderr)
        return 2
    matmul = args.matmul or (1024 if device.platform == 'cpu' else 8192)
    result = {
        'date': datetime.date.today().isoformat(), 'device': device.device_kind, 'jax': jax.__version__,
        'size': args.size, 'dtype': args.dtype, 'guidance_batch': args.branches, 'frames': config.frames,
        'image_size': config.image_size, 'latents': config.latent_shape, 'runs': args.runs, 'blocks': args.blocks,
    }
    print(f'{device.device_kind}: {args.size} size, {args.dtype}, guidance batch {args.branches}, {config.frames} '
          f'frames {config.image_size}x{config.image_size}, latents {config.latent_shape}', flush=True)
    result |= measure(config, jnp.dtype(args.dtype).type, branches=args.branches, runs=args.runs, blocks=args.blocks,
                      matmul=matmul, trace_dir=args.trace_dir)
    stats = device.memory_stats() or {}
    result['peak_gib'] = stats['peak_bytes_in_use'] / 2**30 if 'peak_bytes_in_use' in stats else None
    print(f'matrix product {matmul}^3: {result["matmul_tflops"]:.4g} TFLOP/s')
    print(f'condition, once a chunk: {result["condition_ms"]:.4g} ms')
    for name, title in (('step', 'UNet + CAM + APM'), ('unet', 'UNet alone')):
        xla = result[f'{name}_tflop_xla']
        print(f'{title}: {result[f"{name}_ms"]:.4g} ms a guided step, {result[f"{name}_tflop"]:.4g} TFLOP'
              + (f' (XLA counts {xla:.4g})' if xla else '')
              + f', {100 * result[f"{name}_share"]:.3g} % of the matmul rate '
              f'(floor {result[f"{name}_floor_ms"]:.4g} ms), compiled in {result[f"{name}_compile_s"]:.3g} s')
    if result['peak_gib']:
        print(f'peak device memory: {result["peak_gib"]:.3g} GiB')
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
