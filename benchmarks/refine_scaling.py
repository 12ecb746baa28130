"""Measures how much faster several devices refine a video: 8 chunks, spread over the data axis of a mesh.

    python benchmarks/refine_scaling.py [--size full] [--devices 2] [--json out.json]

All of refine() is timed step by step, including the copies of latents from and to the host, first on one device and
then on all. Each chunk is computed by one device. The first step, which compiles, is left out. Parameters are random.
"""

import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes  # makes st2v_jax importable
from refine_step import TOKENS, latent_size, model_config

from st2v_jax import sharding
from st2v_jax.models import build
from st2v_jax.refinement import blend, sdedit

CHUNKS = 8


def step_seconds(
    config: build.ModelConfig, refiner: sdedit.Refiner, params: Any, dtype: type, devices: int, *, steps: int
) -> list[float]:
    """Seconds of each step of a refinement but the first, on a number of devices."""
    settings = sdedit.settings_for(config, steps=steps, group=devices, span=CHUNKS)
    frames = CHUNKS * settings.plan(1).stride + settings.overlap
    latents = np.random.default_rng(0).standard_normal((1, frames, *latent_size(config), 4), np.float32)
    mesh = sharding.make_mesh({sharding.DATA: devices}, jax.devices()[:devices])
    params = jax.device_put(params, sharding.replicated(mesh))
    texts = jax.random.normal(jax.random.key(1), (2, TOKENS, config.refiner.unet.context_width), dtype)
    condition = jax.jit(lambda params, texts: refiner.unet(params, texts, method='keys_values'))(params, texts)
    job = sdedit.Job(refiner, settings, params, condition, blend.split_keys(jax.random.key(0)[None]), mesh)
    ends = []
    sdedit.refine(job, sdedit.begin(job, latents), frames, on_step=lambda *_: ends.append(time.perf_counter()))
    return np.diff(ends).tolist()


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and stores the numbers."""
    parser = probes.parser(__doc__, runs=3)
    parser.add_argument('--devices', type=int, default=2, help='devices that share the chunks (default: %(default)s)')
    args = probes.parse(parser, argv)
    if args.devices > len(jax.devices()) or CHUNKS % args.devices:
        parser.error(f'--devices must be 1, 2, 4 or 8 and at most {len(jax.devices())}, not {args.devices}')
    config, dtype = model_config(args.size), jnp.dtype(args.dtype).type
    refiner = sdedit.Refiner(build.refiner(config, dtype), config.refiner.process)
    params = probes.placed_parameters(refiner.unet.abstract, dtype)
    result = probes.setting(jax.devices()[0], args) | {'chunks': CHUNKS, 'devices': args.devices}
    for devices in (1, args.devices):
        seconds = step_seconds(config, refiner, params, dtype, devices, steps=args.runs + 1)
        result[f'step_s_on_{devices}'] = seconds
        print(
            f'{devices} x {result["device"]}: {statistics.median(seconds):.4g} s per step of {CHUNKS} chunks',
            flush=True,
        )
    one, many = (statistics.median(result[f'step_s_on_{devices}']) for devices in (1, args.devices))
    result['ratio'] = one / many
    print(f'{args.devices} devices are {result["ratio"]:.3g} times as fast as one')
    probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
