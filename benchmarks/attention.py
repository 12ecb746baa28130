"""Measures the Refiner with this device's own attention, and with the blocks that devices without one compute.

    python benchmarks/attention.py [--size full] [--json out.json]

Timed are a forward pass of the UNet on one chunk, one guidance branch, in both ways; and its largest attention alone,
for several sizes of the blocks. Parameters are random. Counting, chaining and the share are as in denoise_step.py.
"""

import contextlib
import statistics
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import probes  # makes st2v_jax importable
from refine_step import TOKENS, latent_size, model_config

from st2v_jax import devices
from st2v_jax.kernels import softmax_attention
from st2v_jax.kernels.softmax_attention import attend, kernel_for
from st2v_jax.models import build
from st2v_jax.refinement import sdedit

BLOCKS = {'full': (26, 27, 28, 29, 30)}  # bytes of scores, as powers of two
SMALL_BLOCKS = (10, 12)


class WithoutKernels(NamedTuple):
    """Stands for a device for which there is no kernel."""

    platform: str = 'cpu'


def measure(config: build.ModelConfig, args: Any) -> dict[str, Any]:
    """Measures one model config; returns a JSON dict."""
    dtype, own = jnp.dtype(args.dtype).type, jax.devices()[0]
    settings, unet = sdedit.settings_for(config), config.refiner.unet
    size = latent_size(config)
    network = build.refiner(config, dtype)
    params = probes.placed_parameters(network.abstract, dtype)
    texts = jax.random.normal(jax.random.key(1), (1, TOKENS, unet.context_width), dtype)
    condition = jax.jit(lambda params, texts: network(params, texts, method='keys_values'))(params, texts)
    matmul, rate = probes.matmul_rate(args.matmul, dtype, blocks=args.blocks)
    shape = (1, settings.length, *size, unet.in_channels)
    x = jax.random.normal(jax.random.key(2), shape)
    heads = (settings.length, size[0] * size[1], unet.channels[0] // unet.head_size, unet.head_size)
    tokens = jax.random.normal(jax.random.key(3), heads, dtype)
    result = {
        'latents': shape[1:],
        'attention': heads,
        'matmul_size': matmul,
        'matmul_tflops': rate / 1e12,
        'forward': {},
        'alone': {},
    }

    def forward(params, condition, x, t):
        return network(params, x, jnp.broadcast_to(t, len(x)), condition)

    timing = dict(rate=rate, runs=args.runs, blocks=args.blocks)
    for name, device in (('own', own), ('blocks', WithoutKernels())):
        with devices.compiling_for(device):
            timed = probes.timed_step(
                forward, (params, condition), jnp.copy(x), [jnp.float32(500)], trace_dir=args.trace_dir, **timing
            )
            result['forward'][name] = timed | {'peak_gib': probes.peak_gib(own)}
            result['alone'][name] = {'kernel': _kernel(tokens), 'ms': _attention_ms(tokens, args)}
    for power in BLOCKS.get(args.size, SMALL_BLOCKS):
        with devices.compiling_for(WithoutKernels()), _blocks_of(2**power):
            result['alone'][f'blocks of 2^{power}'] = {'kernel': _kernel(tokens), 'ms': _attention_ms(tokens, args)}
    times = {name: timed['ms'] for name, timed in result['forward'].items()}
    return result | {'ratio': times['blocks'] / times['own']}


def _kernel(tokens):
    names = []
    jax.eval_shape(lambda x: names.append(kernel_for(devices.current(), x, x).__name__), tokens)
    return names[0]


def _attention_ms(tokens, args):
    program = jax.jit(lambda x: attend(x, x, x))
    times, _ = probes.block_times(lambda x, _: program(x), tokens, [None], runs=args.runs, blocks=args.blocks)
    return 1e3 * statistics.median(times)


@contextlib.contextmanager
def _blocks_of(size: int) -> Iterator[None]:
    before, softmax_attention.SCORE_BYTES = softmax_attention.SCORE_BYTES, size
    try:
        yield
    finally:
        softmax_attention.SCORE_BYTES = before


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and stores the numbers."""
    parser = probes.parser(__doc__, runs=4)
    probes.add_rate_options(parser)
    args = probes.parse(parser, argv)
    device = jax.devices()[0]
    result = probes.setting(device, args) | measure(model_config(args.size), args)
    print(f'{device.device_kind}: {args.size} size, {args.dtype}, latents {result["latents"]} of one chunk')
    for name, timed in result['forward'].items():
        peak = f', peak device memory so far {timed["peak_gib"]:.3g} GiB' if timed['peak_gib'] else ''
        print(probes.describe(f'UNet, {name}', 'per forward pass', timed) + peak)
        print(f'  memory of the program: {timed["program_gib"]:.3g} GiB')
    print(f'with blocks it takes {result["ratio"]:.3g} times as long')
    for name, timed in result['alone'].items():
        print(f'attention {result["attention"]} alone, {name}: {timed["kernel"]}, {timed["ms"]:.4g} ms')
    probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
