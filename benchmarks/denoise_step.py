"""Measures the time of one guided denoising step of the streaming stage, on the device of this machine.

    python benchmarks/denoise_step.py [--size full] [--json out.json] [--trace-dir DIR]

A step is what sampling does for each noise level: the denoiser (UNet with CAM and APM) on the batch of guidance
branches, guidance, and the DDIM update. Each step starts from the result of the one before, and blocks of steps are
timed, so that the host dispatches ahead of the device, as in sampling. What is computed once per chunk (keys and values
of the text with the tokens of APM, features of E_cond) is timed separately. Parameters are random: the time does not
depend on them. $ST2V_KERNELS says which kernels are taken; with --prediction and --against, runs with different ones
are compared.

FLOPs are two for each multiply-add of the matrix products, convolutions and attentions in the traced program; the count
of XLA for the compiled program is given too, if there is one. The share compares with the rate of this device for one
large matrix product, measured in the same precision.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes  # makes st2v_jax importable

from st2v_jax.diffusion import predict, sampling, solvers
from st2v_jax.diffusion.guidance import text_and_anchor, text_with_anchor
from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.models.apm import ApmConfig
from st2v_jax.models.cam import CamConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig
from st2v_jax.open_model import open_model

LEVELS = 50  # noise levels of the trajectory, which the timed steps repeat


def model_config(size: str) -> build.ModelConfig:
    """The ModelConfig of 'full', 'small' (the shipped model) or 'tiny' (to test the program)."""
    if size == 'full':
        return build.ModelConfig()
    if size == 'small':
        return open_model().config
    return build.ModelConfig(
        frame_size=(64, 64),
        frames=4,
        memory=2,
        backbone=UNetConfig(
            channels=(32, 64), attention=(True, False), blocks=1, head_size=16, context_width=32, groups=8
        ),
        cam=CamConfig(conditioning_channels=(8, 8, 8, 16), head_size=16),
        apm=ApmConfig(image_width=16, inner_width=16),
        vae=VaeConfig(block_channels=(32, 32, 32, 32)),
    )


def guided_step(network: build.Network, config: build.ModelConfig, branches: int, scale: float = 7.5) -> Callable:
    """The step of the sampler: (params, condition, trajectory, (number, level, next level)) -> trajectory."""

    def step(params, condition, trajectory, inputs):
        def branch_network(x, t):
            return network(params, x, t, condition)

        guidance = text_with_anchor(scale) if branches == 2 else text_and_anchor(scale, scale)
        guided = guidance(branch_network)
        return sampling.stepper(predict.denoiser(guided, config.diffusion.prediction))(trajectory, inputs)

    return step


def measure(
    config: build.ModelConfig,
    dtype: type,
    *,
    branches: int,
    runs: int,
    blocks: int,
    matmul: int | None,
    trace_dir: str | None = None,
    prediction: str | None = None,
    against: Sequence[str] = (),
) -> dict[str, Any]:
    """Measures one model config; returns a JSON dict."""
    network = build.denoiser(config, dtype)
    params = probes.placed_parameters(network.abstract, dtype)
    key = jax.random.key(1)
    text = jax.random.normal(key, (branches, config.apm.text_tokens, config.backbone.context_width), dtype)
    pixels = (1, config.memory, *config.frame_size, 3)
    frames = jax.random.uniform(key, pixels, dtype, -1, 1)
    tokens = (branches, config.apm.image_tokens, config.backbone.context_width)
    anchor = jax.random.normal(key, tokens, dtype)
    levels = solvers.sampling_levels(config.diffusion, 'ddim', min(LEVELS, config.diffusion.steps - 1))
    numbers, now, nxt = sampling.steps(levels)
    inputs = [jax.tree.map(lambda leaf, i=i: leaf[i], (numbers, now, nxt)) for i in range(len(numbers))]

    condition = jax.jit(lambda p, *given: network(p, *given, texts=2, method='condition'))
    conditions = {'step': condition(params, text, frames, anchor), 'unet': condition(params, text)}
    condition_times, _ = probes.block_times(
        lambda _, given: condition(params, *given), None, [(text, frames, anchor)], runs=runs, blocks=blocks
    )
    result = {'parameters': build.parameter_count(params), 'condition_ms': 1e3 * statistics.median(condition_times)}
    matmul, rate = probes.matmul_rate(matmul, dtype, blocks=blocks)
    result |= {'matmul_size': matmul, 'matmul_tflops': rate / 1e12}

    def look(state):
        x0 = np.asarray(state.x0)
        result['errors'] = errors_against(x0, against)
        if prediction:
            np.save(prediction, x0)

    step = guided_step(network, config, branches)
    for name, fixed in conditions.items():
        read = params if name == 'step' else {'unet': params['unet']}
        x = jax.random.normal(key, (1, *config.latent_shape), jnp.float32)
        state = sampling.begin(x, levels)
        timed = probes.timed_step(
            step,
            (read, fixed),
            state,
            inputs,
            rate=rate,
            runs=runs,
            blocks=blocks,
            trace_dir=trace_dir if name == 'step' else None,
            look=look if name == 'step' else None,
        )
        result |= {f'{name}_{what}': value for what, value in timed.items()}
    return result


def errors_against(x0: np.ndarray, files: Sequence[str]) -> dict[str, float]:
    """Relative errors, in norm, of predicted latents against those in each of the files that are there; printed too."""
    errors = {}
    for file in files:
        if Path(file).exists():
            other = np.load(file)
            errors[Path(file).stem] = float(np.linalg.norm(x0 - other) / np.linalg.norm(other))
            print(f'prediction: error {errors[Path(file).stem]:.3e} against {file}', flush=True)
        else:
            print(f'prediction: {file} is not there to compare with', flush=True)
    return errors


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line, checked."""
    parser = probes.parser(__doc__, runs=20)
    parser.add_argument(
        '--branches',
        type=int,
        choices=(2, 3),
        default=2,
        help='guidance branches of a step: 2 as in the release, 3 as in equation 12 (default: %(default)s)',
    )
    parser.add_argument('--prediction', help='file (.npy) for the clean latents that the first step predicts')
    parser.add_argument('--against', nargs='+', default=[], help='such files, to compare this prediction with')
    probes.add_rate_options(parser)
    return probes.parse(parser, argv)


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and stores the numbers."""
    args = arguments(argv)
    device = jax.devices()[0]
    try:
        config = model_config(args.size)
    except WeightsError as error:
        print(f'denoise_step.py: {error}', file=sys.stderr)
        return 2
    result = probes.setting(device, args) | {
        'guidance_batch': args.branches,
        'frames': config.frames,
        'frame_size': config.frame_size,
        'latents': config.latent_shape,
    }
    print(
        f'{device.device_kind}: {args.size} size, {args.dtype}, guidance batch {args.branches}, {config.frames} '
        f'frames {config.frame_size[0]}x{config.frame_size[1]}, latents {config.latent_shape}',
        flush=True,
    )
    result |= measure(
        config,
        jnp.dtype(args.dtype).type,
        branches=args.branches,
        runs=args.runs,
        blocks=args.blocks,
        matmul=args.matmul,
        trace_dir=args.trace_dir,
        prediction=args.prediction,
        against=args.against,
    )
    result['peak_gib'] = probes.peak_gib(device)
    print(f'matrix product {result["matmul_size"]}^3: {result["matmul_tflops"]:.4g} TFLOP/s')
    print(f'condition, once per chunk: {result["condition_ms"]:.4g} ms')
    for name, title in (('step', 'UNet + CAM + APM'), ('unet', 'UNet alone')):
        numbers = {key.removeprefix(f'{name}_'): value for key, value in result.items() if key.startswith(f'{name}_')}
        print(probes.describe(title, 'per guided step', numbers))
    if result['peak_gib']:
        print(f'peak device memory: {result["peak_gib"]:.3g} GiB')
    probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
