"""Measures the time of the Refiner for one chunk of frames, on this machine, and projects that of a video.

    python benchmarks/refine_step.py [--size full] [--json out.json] [--trace-dir DIR]

Two programs are timed: the UNet on one chunk, and a guided step of refinement (the UNet on the two guidance branches,
guidance with rescaling, new noise, the stochastic DPM-Solver++(2M)). Encoding and decoding are timed per frame. The
time of a whole video follows from these: chunks times steps times the guided step, plus the frames times encoding and
decoding. Parameters are random. Counting, chaining and the share are as in denoise_step.py.
"""

import statistics
import sys
from typing import Any

import jax
import jax.numpy as jnp
import probes  # makes st2v_jax importable

from st2v_jax.models import build
from st2v_jax.models.refiner import RefinerConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig
from st2v_jax.open_model import open_model
from st2v_jax.refinement import blend, sdedit
from st2v_jax.refinement.canvas import fit

TOKENS = 77


def model_config(size: str) -> build.ModelConfig:
    """The ModelConfig of 'full', 'small' (the shipped model) or 'tiny', with the Refiner's own networks."""
    if size == 'full':
        return build.ModelConfig().for_refinement
    if size == 'small':
        return open_model().config.for_refinement
    unet = UNetConfig(channels=(32,), attention=(True,), blocks=1, head_size=16, context_width=32, groups=8)
    tiny = RefinerConfig(unet, vae=VaeConfig((32, 32)), box=(16, 32), steps=4, length=6, overlap=2)
    return build.ModelConfig(refiner=tiny).for_refinement


def latent_size(config: build.ModelConfig) -> tuple[int, int]:
    """Height and width of the Refiner's latents."""
    factor = config.vae.downsampling
    return tuple(length // factor for length in fit((1, 1), config.refiner.box, config.refiner.unet, factor).whole)


def measure(
    config: build.ModelConfig,
    dtype: type,
    *,
    frames: int,
    piece: int,
    runs: int,
    blocks: int,
    matmul: int | None,
    trace_dir: str | None = None,
) -> dict[str, Any]:
    """Measures one model config; returns a JSON dict. `piece` frames are encoded or decoded at once."""
    settings = sdedit.settings_for(config)
    plan, size = settings.plan(frames), latent_size(config)
    refiner = sdedit.Refiner(build.refiner(config, dtype), config.refiner.process)
    params = probes.placed_parameters(refiner.unet.abstract, dtype)
    matmul, rate = probes.matmul_rate(matmul, dtype, blocks=blocks)
    shape = (1, settings.length, *size, config.refiner.unet.in_channels)
    result = {
        'box': config.refiner.box,
        'latents': shape[1:],
        'parameters': build.parameter_count(params),
        'matmul_size': matmul,
        'matmul_tflops': rate / 1e12,
    }

    texts = jax.random.normal(jax.random.key(1), (2, TOKENS, config.refiner.unet.context_width), dtype)
    condition = jax.jit(lambda params, texts: refiner.unet(params, texts, method='keys_values'))
    keys = blend.split_keys(jax.random.key(0)[None])
    job = sdedit.Job(refiner, settings, params, condition(params, texts), keys)
    steps = [job.step(number) for number in range(settings.steps)]
    x = jax.random.normal(jax.random.key(2), shape)
    timing = dict(rate=rate, runs=runs, blocks=blocks)

    def forward(params, condition, x, step):
        return refiner.unet(params, x, jnp.broadcast_to(step.now.t, len(x)), condition)

    def guided(job, latents, step):
        return sdedit.whole_step(settings.plan(settings.length), job, step, *latents, None)

    for name, run, fixed, state in (
        ('forward', forward, (params, condition(params, texts[1:])), x),
        ('step', guided, (job,), (x, jnp.zeros_like(x))),
    ):
        timed = probes.timed_step(
            run, fixed, jax.tree.map(jnp.copy, state), steps, trace_dir=trace_dir if name == 'step' else None, **timing
        )
        result |= {f'{name}_{what}': value for what, value in timed.items()}
        result[f'{name}_peak_gib'] = probes.peak_gib(jax.devices()[0])
    pixels = (length * config.vae.downsampling for length in size)
    result |= autoencoder(config, dtype, (piece, *pixels, 3), runs=runs, blocks=blocks)
    refined = plan.count * settings.steps * result['step_ms'] / 1e3
    coded = frames * (result['encode_ms'] + result['decode_ms']) / 1e3
    return result | {
        'video_frames': frames,
        'video_chunks': plan.count,
        'video_steps': settings.steps,
        'video_refined_s': refined,
        'video_coded_s': coded,
        'video_s': refined + coded,
    }


def autoencoder(
    config: build.ModelConfig, dtype: type, shape: tuple[int, ...], *, runs: int, blocks: int
) -> dict[str, float]:
    """Milliseconds per frame to encode and decode frames of `shape` [n, H, W, 3]."""
    network = build.vae(config, dtype)
    params = probes.placed_parameters(network.abstract, dtype)
    encode = jax.jit(lambda frames: network(params, frames, method='encode')[0])
    decode = jax.jit(lambda latents: network(params, latents, method='decode'))
    frames = jnp.zeros(shape)
    found = {}
    for name, run, given in (('encode', encode, frames), ('decode', decode, encode(frames))):
        times, _ = probes.block_times(
            lambda _, given, run=run: run(given), None, [given], runs=max(1, runs // 4), blocks=blocks
        )
        found[f'{name}_ms'] = 1e3 * statistics.median(times) / len(frames)
    return found


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and stores the numbers."""
    parser = probes.parser(__doc__, runs=8)
    parser.add_argument('--frames', type=int, default=240, help='frames of the projected video (default: %(default)s)')
    parser.add_argument('--piece', type=int, default=4, help='frames encoded or decoded at once (default: %(default)s)')
    probes.add_rate_options(parser)
    args = probes.parse(parser, argv)
    device, config = jax.devices()[0], model_config(args.size)
    result = probes.setting(device, args) | measure(
        config,
        jnp.dtype(args.dtype).type,
        frames=args.frames,
        piece=args.piece,
        runs=args.runs,
        blocks=args.blocks,
        matmul=args.matmul,
        trace_dir=args.trace_dir,
    )
    print(f'{device.device_kind}: {args.size} size, {args.dtype}, latents {result["latents"]} of one chunk')
    print(f'matrix product {result["matmul_size"]}^3: {result["matmul_tflops"]:.4g} TFLOP/s')
    for name, title, what in (('forward', 'UNet', 'per forward pass'), ('step', 'guidance batch 2', 'per guided step')):
        timed = {key.removeprefix(f'{name}_'): value for key, value in result.items() if key.startswith(f'{name}_')}
        print(probes.describe(title, what, timed))
        if timed['peak_gib']:
            print(f'  peak device memory so far: {timed["peak_gib"]:.3g} GiB')
    print(f'autoencoder: encoding {result["encode_ms"]:.4g} ms per frame, decoding {result["decode_ms"]:.4g} ms')
    height, width = config.refiner.box
    print(
        f'{args.frames} frames of {width}x{height}: {result["video_chunks"]} chunks, {result["video_steps"]} steps, '
        f'{result["video_s"]:.4g} s, of which {result["video_coded_s"]:.3g} s in the autoencoder'
    )
    probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
