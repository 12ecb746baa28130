"""Time, memory and share of the matmul rate of a training step, on one device and on several.

    python benchmarks/train_step.py [--stage cam] [--try none:4 --try nothing_saveable:8] [--devices 2] [--json FILE]
    python benchmarks/train_step.py --json docs/performance/train-step.json --page docs/training.md

A try is a remat policy and a batch per device. The step is the one that train.py takes, from a pool of random examples
with random parameters: the time does not depend on them. Steps are chained; blocks of them are timed. Only operations
that are needed count: no weight gradients of frozen layers, nothing computed twice. A try that does not fit says so.
With --devices each try that fits is taken on all of them too, with the same batch per device, split over `data`. The
second form measures nothing: it writes the figures into the page, and what lies on a device of several meshes by
arithmetic.
"""

import math
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import probes  # which finds st2v_jax
from jax.sharding import AbstractMesh, AxisType

from st2v_jax import sharding, weights
from st2v_jax.cli.train import load_config
from st2v_jax.models import build
from st2v_jax.training import denoising, state, step
from st2v_jax.training.objective import Objective

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
BEGIN, END = '<!-- figures of benchmarks/train_step.py -->', '<!-- end of figures -->'
MESHES = ((1, 1, 1), (8, 1, 1), (1, 8, 1), (8, 8, 1), (1, 64, 1), (32, 8, 1), (4, 64, 1), (16, 8, 2))
GIB = 2**30


def networks(config):
    """Names of the networks that a step of this stage reads."""
    return ('text', 'unet') + ('cam',) * config.memory + ('apm',) * config.anchor


def random_pool(config, model, mesh):
    """A pool of one random video for each example of a batch, as `denoising.make_data` would make it."""
    random, frames, side = np.random.default_rng(0), config.data.frames, model.image_size
    rows = (config.batch_size, 1)
    ids = random.integers(0, model.text.vocab_size, (*rows, config.data.captions, model.text.max_tokens), np.int32)
    videos = denoising.Videos(
        random.standard_normal((*rows, frames, *model.latent_shape[1:]), np.float32).astype(np.float16), ids,
        random.integers(0, 256, (*rows, frames, side, side, 3), np.uint8) if config.memory else None,
        random.standard_normal((*rows, frames, model.image.embed_dim), np.float32).astype(np.float16)
        if config.anchor else None,
    )
    empty = sharding.place((ids[0, 0, 0], np.zeros(model.image.embed_dim, np.float32)), sharding.replicated(mesh))
    return denoising.Data(sharding.place(videos, sharding.split_rows(mesh)), *empty)


def measure(stage, size, dtype, remat, batch, devices, **timing):
    """The figures of one try, as a JSON dict; `fits` is false where the device has too little memory."""
    overrides = {'remat': remat, 'batch_size': str(batch * devices), 'dtype': dtype,
                 'data.scenes': str(batch * devices)}
    config, _ = load_config(f'{CONFIGS / stage}.py:{size}', overrides)
    result = {'remat': remat, 'batch': batch, 'devices': devices}
    try:
        return result | {'fits': True} | _measure(config, devices, **timing)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return result | {'fits': False, 'error': str(error).splitlines()[0][:200]}


def _measure(config, devices, *, runs, blocks, trace_dir=None):
    model, dtype = build.ModelConfig.from_dict(config.model.to_dict()), jnp.dtype(config.dtype)
    mesh = sharding.make_mesh({'data': devices, 'fsdp': 1, 'tensor': 1}, jax.devices()[:devices])
    draw, loss = denoising.functions(config, model)
    tree = weights.abstract(model, networks(config))
    abstract = state.split(tree, partial(denoising.is_trained, config))
    optimizer = step.make_optimizer(**config.optimizer)
    born = partial(state.create, optimizer=optimizer)
    places = sharding.shardings(jax.eval_shape(born, abstract[0]), mesh)
    place_frozen = sharding.shardings(abstract[1], mesh)
    trained = jax.device_put(probes.random_parameters(abstract[0], jnp.float32), places.params)
    frozen = jax.device_put(probes.random_parameters(abstract[1], dtype), place_frozen)
    now = jax.jit(born, out_shardings=places, donate_argnums=0)(trained)
    everywhere = sharding.replicated(mesh)
    data, key = random_pool(config, model, mesh), jax.device_put(jax.random.key(1), everywhere)
    objective = Objective({}, None, data, draw, loss, partial(loss, remat='none'))
    needed = step.needed_flops(objective, now.params, frozen, data)
    progress = jax.device_put(jnp.float32(0.5), everywhere)
    began = time.perf_counter()
    run = step.compiled_step(config, draw, loss, optimizer, mesh, places, place_frozen)
    run = run.lower(now, frozen, data, progress, key).compile()
    compile_seconds, memory = time.perf_counter() - began, run.memory_analysis()
    losses = []

    def advance(now, data):
        now, metrics = run(now, frozen, data, progress, key)
        losses.append(metrics['loss'])
        return now

    times, now = probes.block_times(advance, now, [data], runs=runs, blocks=blocks)
    if trace_dir:
        with jax.profiler.trace(trace_dir):
            probes.block_times(advance, now, [data], runs=1, blocks=1)
    if not np.isfinite(jax.device_get(losses)).all():
        raise FloatingPointError(f'the loss of a timed step is not finite: {jax.device_get(losses)}')
    seconds = statistics.median(times)
    return {
        'ms': 1e3 * seconds,
        'ms_blocks': [1e3 * t for t in times],
        'needed_tflop': needed / 1e12,
        'flops': needed / seconds,
        'compile_s': compile_seconds,
        'state_gib': memory.argument_size_in_bytes / GIB,
        'activations_gib': memory.temp_size_in_bytes / GIB,
        'peak_gib': probes.peak_gib(jax.devices()[0]),
    }


def per_device(stage):
    """Bytes on each device at released size by mesh (data, fsdp, tensor), of what stays there between steps.

    A list of dicts: trained parameters and their average, the optimizer's state (all float32), frozen parameters in
    bfloat16 (vectors in float32).
    """
    config, _ = load_config(CONFIGS / f'{stage}.py')
    model = build.ModelConfig.from_dict(config.model.to_dict())
    tree = weights.abstract(model, networks(config))
    trained, frozen = state.split(tree, partial(denoising.is_trained, config))
    now = jax.eval_shape(partial(state.create, optimizer=step.make_optimizer(**config.optimizer)), trained)
    frozen = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16 if leaf.ndim > 1 else jnp.float32), frozen)

    def share(tree, mesh):
        sizes = jax.tree.map(lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize, tree,
                             sharding.shardings(tree, mesh))
        return sum(jax.tree.leaves(sizes))

    rows = []
    for sizes in MESHES:
        mesh = AbstractMesh(sizes, ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
        rows.append({'mesh': sizes, 'devices': math.prod(sizes), 'parameters': share((now.params, now.ema), mesh),
                     'optimizer': share(now.opt, mesh), 'frozen': share(frozen, mesh)})
    return rows


def table(result):
    """The figures as lines of the page."""
    rate = result['matmul_tflops']
    lines = [
        BEGIN,
        '',
        f'Measured {result["date"]} on {result["device"]}, jax {result["jax"]}, {result["dtype"]}, stage '
        f'`{result["stage"]}` at {result["size"]} size, the matrix product {result["matmul_size"]}^3 at {rate:.0f} '
        'TFLOP/s, by',
        '',
        f'    {result["command"]}',
        '',
        '| remat | batch per device | devices | ms a step | videos/s | needed TFLOP | share of the matmul rate | '
        'state, GiB | activations, GiB | compile, s |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for found in result['tries']:
        name = f'| `{found["remat"]}` | {found["batch"]} | {found["devices"]} |'
        if not found['fits']:
            lines.append(f'{name} does not fit | | | | | | |')
            continue
        lines.append(
            f'{name} {found["ms"]:.0f} | {found["batch"] * found["devices"] / found["ms"] * 1e3:.1f} | '
            f'{found["needed_tflop"]:.1f} | {100 * found["share"]:.1f} % | {found["state_gib"]:.1f} | '
            f'{found["activations_gib"]:.1f} | {found["compile_s"]:.0f} |')
    lines += ['', *(f'{ratio["devices"]} devices, `{ratio["remat"]}`, batch {ratio["batch"]} each: '
                    f'{ratio["ratio"]:.2f} times the videos of one.' for ratio in result['ratios'])]
    lines += [
        '',
        f'What stays on a device between steps of `{result["stage"]}` at released size, by arithmetic over the rules '
        'of `st2v_jax/sharding.py` (GiB; activations and the gradient, as large as what is trained, come on top):',
        '',
        '| devices | mesh data x fsdp x tensor | parameters and average | optimizer | frozen | in all |',
        '| ---: | --- | ---: | ---: | ---: | ---: |',
    ]
    for row in result['per_device']:
        sizes = [row[name] / GIB for name in ('parameters', 'optimizer', 'frozen')]
        lines.append(f'| {row["devices"]} | {" x ".join(map(str, row["mesh"]))} | '
                     + ' | '.join(f'{size:.2f}' for size in (*sizes, sum(sizes))) + ' |')
    return '\n'.join([*lines, '', END])


def _try(text):
    remat, _, batch = text.partition(':')
    return remat, int(batch)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = probes.parser(__doc__, runs=5)
    parser.add_argument('--stage', choices=('video_ldm', 'cam', 'apm'), default='cam')
    parser.add_argument('--try', dest='tries', type=_try, action='append', metavar='REMAT:BATCH',
                        help='a remat policy and a batch per device (default: none:4 and nothing_saveable:8)')
    parser.add_argument('--devices', type=int, default=1, help='to take the step on as well (default: %(default)s)')
    probes.add_rate_options(parser)
    parser.add_argument('--page', help='write the numbers of --json into this page, and measure nothing')
    args = probes.parse(parser, argv)
    if args.page:
        probes.write_page(args.page, BEGIN, END, table, args.json)
        return 0
    if not 1 <= args.devices <= len(jax.devices()):
        parser.error(f'--devices is 1 to {len(jax.devices())} here, not {args.devices}')
    matmul, rate = probes.matmul_rate(args.matmul, jnp.dtype(args.dtype), blocks=args.blocks)
    result = probes.setting(jax.devices()[0], args) | {
        'stage': args.stage, 'command': ' '.join(['python benchmarks/train_step.py', *argv]), 'matmul_size': matmul,
        'matmul_tflops': rate / 1e12, 'tries': [], 'ratios': [], 'per_device': per_device(args.stage)}
    for remat, batch in args.tries or [('none', 4), ('nothing_saveable', 8)]:
        found = []
        for devices in sorted({1, args.devices}):
            one = measure(args.stage, args.size, args.dtype, remat, batch, devices, runs=args.runs, blocks=args.blocks,
                          trace_dir=args.trace_dir)
            if one['fits']:
                one['share'] = one['flops'] / rate / devices
                print(f'{remat}, {devices} x {batch}: {one["ms"]:.4g} ms, {one["needed_tflop"]:.4g} TFLOP needed, '
                      f'{100 * one["share"]:.3g} % of the matmul rate, state {one["state_gib"]:.3g} GiB, activations '
                      f'{one["activations_gib"]:.3g} GiB, compiled in {one["compile_s"]:.3g} s', flush=True)
            else:
                print(f'{remat}, {devices} x {batch}: does not fit', flush=True)
            found.append(one)
            if not one['fits']:
                break
        result['tries'] += found
        if len(found) == 2 and found[1]['fits']:
            ratio = args.devices * found[0]['ms'] / found[1]['ms']
            result['ratios'].append({'remat': remat, 'batch': batch, 'devices': args.devices, 'ratio': ratio})
            print(f'{remat}: {args.devices} devices train {ratio:.3g} times the videos of one', flush=True)
        probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
