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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import probes  # which finds st2v_jax
from jax.sharding import AbstractMesh, AxisType

from st2v_jax import sharding
from st2v_jax.checkpoint import abstract
from st2v_jax.models import build
from st2v_jax.training import denoising, pools, state, step
from st2v_jax.training.batch import Data
from st2v_jax.training.config_files import load_config
from st2v_jax.training.objective import Objective
from st2v_jax.weights import layout

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
BEGIN, END = '<!-- figures of benchmarks/train_step.py -->', '<!-- end of figures -->'
MESHES = ((1, 1, 1), (8, 1, 1), (1, 8, 1), (8, 8, 1), (1, 64, 1), (32, 8, 1), (4, 64, 1), (16, 8, 2))
GIB = 2**30
TOKENS = 64  # every vocabulary has more


def networks(config):
    """Names of the networks that a step of this stage reads."""
    return ('text', 'unet') + ('cam',) * config.memory + ('apm',) * config.anchor


def parameters(config):
    """(ModelConfig, shapes of the parameters that are trained, of those that are frozen, as a step holds them)."""
    model = build.ModelConfig.from_dict(config.model.to_dict())
    trained, frozen = state.split(layout.abstract(model, networks(config)), partial(denoising.is_trained, config))
    return model, trained, jax.eval_shape(partial(build.cast, dtype=jnp.dtype(config.dtype)), frozen)


def pool_shapes(config, model):
    """Shapes of a pool of one video for each example of a batch, as `pools.make_data` makes it."""
    rows, frames, size = (config.batch_size, 1), config.data.frames, model.frame_size
    shape = jax.ShapeDtypeStruct
    videos = pools.Videos(
        shape((*rows, frames, *model.latent_shape[1:]), jnp.float16),
        shape((*rows, config.data.captions, model.text.max_tokens), jnp.int32),
        shape((*rows, frames, *size, 3), jnp.uint8) if config.memory else None,
        shape((*rows, frames, model.image.embed_dim), jnp.float16) if config.anchor else None,
    )
    empty_anchor = shape((model.image.embed_dim,), jnp.float32) if config.anchor else None
    return Data(videos, shape((model.text.max_tokens,), jnp.int32), empty_anchor)


def random_pool(shapes):
    """A pool of random bytes, tokens and latents."""
    random = np.random.default_rng(0)

    def born(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return random.integers(0, TOKENS if leaf.dtype == np.int32 else 256, leaf.shape, leaf.dtype)
        return random.standard_normal(leaf.shape, np.float32).astype(leaf.dtype)

    return jax.tree.map(born, shapes)


class Compiled(NamedTuple):
    """A training step of a config on so many devices, and what it takes: shapes with shardings."""

    run: Any
    state: Any
    frozen: Any
    data: Any
    key: Any
    seconds: float


def compiled(config, devices) -> Compiled:
    """The step that train.py takes, compiled from shapes: nothing is allocated."""
    model, trained, frozen = parameters(config)
    mesh = sharding.make_mesh({'data': devices, 'fsdp': 1, 'tensor': 1}, jax.devices()[:devices])
    draw, loss = denoising.functions(config, model)
    optimizer = step.make_optimizer(**config.optimizer)
    now = jax.eval_shape(partial(state.create, optimizer=optimizer), trained)
    everywhere, rows = sharding.replicated(mesh), sharding.split_rows(mesh)
    places, place_frozen = sharding.shardings(now, mesh), sharding.shardings(frozen, mesh)
    data = pool_shapes(config, model)
    places_data = jax.tree.map(lambda _: everywhere, data)._replace(videos=jax.tree.map(lambda _: rows, data.videos))
    now, frozen, data = abstract(now, places), abstract(frozen, place_frozen), abstract(data, places_data)
    key = abstract(jax.eval_shape(lambda: jax.random.key(0)), everywhere)
    began = time.perf_counter()
    run = step.compiled_step(config, draw, loss, optimizer, mesh, places, place_frozen)
    run = run.lower(now, frozen, data, abstract(jnp.float32(0), everywhere), key).compile()
    return Compiled(run, now, frozen, data, key, time.perf_counter() - began)


def load(args, remat, rows):
    """The config of a try with so many rows in its batch, and in its pool."""
    overrides = {'remat': remat, 'batch_size': str(rows), 'dtype': args.dtype, 'data.scenes': str(rows)}
    return load_config(f'{CONFIGS / args.stage}.py:{args.size}', overrides)[0]


def needed_flops(args, batch):
    """Operations that a step needs for a batch."""
    config = load(args, 'none', batch)
    model, trained, frozen = parameters(config)
    draw, loss = denoising.functions(config, model)
    objective = Objective({}, None, None, draw, loss, loss)
    return step.needed_flops(objective, trained, frozen, pool_shapes(config, model))


def measure(args, remat, batch, devices):
    """The figures of one try, as a JSON dict; `fits` is false where the device has too little memory."""
    result = {'remat': remat, 'batch': batch, 'devices': devices}
    try:
        return result | {'fits': True} | timed(compiled(load(args, remat, batch * devices), devices), args)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return result | {'fits': False, 'error': str(error).splitlines()[0][:200]}


def timed(step, args):
    """Times and memory of a Compiled step, from random parameters."""
    memory, dtype = step.run.memory_analysis(), jnp.dtype(args.dtype)
    say(
        f'compiled in {step.seconds:.0f} s, state {memory.argument_size_in_bytes / GIB:.3g} GiB, activations '
        f'{memory.temp_size_in_bytes / GIB:.3g} GiB'
    )
    put = lambda tree, shapes: jax.tree.map(lambda leaf, shape: jax.device_put(leaf, shape.sharding), tree, shapes)
    now = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), step.state)
    params = put(probes.random_parameters(step.state.params, jnp.float32), step.state.params)
    now = now._replace(params=params, ema=jax.tree.map(jnp.copy, params))
    frozen = put(probes.random_parameters(step.frozen, dtype), step.frozen)
    data, losses = put(random_pool(step.data), step.data), []
    key, progress = jax.device_put(jax.random.key(1), step.key.sharding), jnp.float32(0.5)
    progress = jax.device_put(progress, step.key.sharding)

    def advance(now, data):
        now, metrics = step.run(now, frozen, data, progress, key)
        losses.append(metrics['loss'])
        return now

    times, now = probes.block_times(advance, now, [data], runs=args.runs, blocks=args.blocks)
    if args.trace_dir:
        with jax.profiler.trace(args.trace_dir):
            probes.block_times(advance, now, [data], runs=1, blocks=1)
    if not np.isfinite(jax.device_get(losses)).all():
        raise FloatingPointError(f'the loss of a timed step is not finite: {jax.device_get(losses)}')
    return {
        'ms': 1e3 * statistics.median(times),
        'ms_blocks': [1e3 * t for t in times],
        'compile_s': step.seconds,
        'state_gib': memory.argument_size_in_bytes / GIB,
        'activations_gib': memory.temp_size_in_bytes / GIB,
        'peak_gib': probes.peak_gib(jax.devices()[0]),
    }


def say(text):
    print(text, flush=True)


def per_device(stage):
    """Bytes on each device at full size by mesh (data, fsdp, tensor), of what stays there between steps.

    A list of dicts: trained parameters and their average, the optimizer's state (all float32), frozen parameters in
    bfloat16 (vectors in float32).
    """
    config, _ = load_config(CONFIGS / f'{stage}.py')
    _, trained, frozen = parameters(config)
    now = jax.eval_shape(partial(state.create, optimizer=step.make_optimizer(**config.optimizer)), trained)

    def share(tree, mesh):
        sizes = jax.tree.map(
            lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize,
            tree,
            sharding.shardings(tree, mesh),
        )
        return sum(jax.tree.leaves(sizes))

    rows = []
    for sizes in MESHES:
        mesh = AbstractMesh(sizes, ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
        rows.append(
            {
                'mesh': sizes,
                'devices': math.prod(sizes),
                'parameters': share((now.params, now.ema), mesh),
                'optimizer': share(now.opt, mesh),
                'frozen': share(frozen, mesh),
            }
        )
    return rows


def table(result):
    """The figures as lines of the page."""
    rate = result['matmul_tflops']
    lines = [
        BEGIN,
        '',
        f'Measured {result["date"]} on {result["device"]}, jax {result["jax"]}, {result["dtype"]}, stage '
        f'`{result["stage"]}` at {probes.size_name(result)} size, '
        f'the matrix product {result["matmul_size"]}^3 at {rate:.0f} '
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
            f'{found["activations_gib"]:.1f} | {found["compile_s"]:.0f} |'
        )
    for ratio in result['ratios']:
        lines += [
            '',
            f'{ratio["devices"]} devices, `{ratio["remat"]}`, batch {ratio["batch"]} each: '
            f'{ratio["ratio"]:.2f} times the videos of one.',
        ]
    lines += [
        '',
        f'What stays on a device between steps of `{result["stage"]}` at full size, by arithmetic over the rules '
        'of `st2v_jax/sharding.py` (GiB; activations and the gradient, as large as what is trained, come on top):',
        '',
        '| devices | mesh data x fsdp x tensor | parameters and average | optimizer | frozen | in all |',
        '| ---: | --- | ---: | ---: | ---: | ---: |',
    ]
    for row in result['per_device']:
        sizes = [row[name] / GIB for name in ('parameters', 'optimizer', 'frozen')]
        lines.append(
            f'| {row["devices"]} | {" x ".join(map(str, row["mesh"]))} | '
            + ' | '.join(f'{size:.2f}' for size in (*sizes, sum(sizes)))
            + ' |'
        )
    return '\n'.join([*lines, '', END])


def _try(text):
    remat, _, batch = text.partition(':')
    return remat, int(batch)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = probes.parser(__doc__, runs=5)
    parser.add_argument('--stage', choices=('video_ldm', 'cam', 'apm'), default='cam')
    parser.add_argument(
        '--try',
        dest='tries',
        type=_try,
        action='append',
        metavar='REMAT:BATCH',
        help='a remat policy and a batch per device (default: none:4 and nothing_saveable:8)',
    )
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
        'stage': args.stage,
        'command': ' '.join(['python benchmarks/train_step.py', *argv]),
        'matmul_size': matmul,
        'matmul_tflops': rate / 1e12,
        'tries': [],
        'ratios': [],
        'per_device': per_device(args.stage),
    }
    for remat, batch in args.tries or [('none', 4), ('nothing_saveable', 8)]:
        found, needed = [], needed_flops(args, batch)
        for devices in sorted({1, args.devices}):
            one = measure(args, remat, batch, devices)
            if one['fits']:
                one['needed_tflop'] = devices * needed / 1e12
                one['share'] = needed / one['ms'] * 1e3 / rate
                say(
                    f'{remat}, {devices} x {batch}: {one["ms"]:.4g} ms, {one["needed_tflop"]:.4g} TFLOP needed, '
                    f'{100 * one["share"]:.3g} % of the matmul rate'
                )
            else:
                say(f'{remat}, {devices} x {batch}: does not fit')
            found.append(one)
            result['tries'].append(one)
            probes.store(args.json, result)
            if not one['fits']:
                break
        if len(found) == 2 and found[1]['fits']:
            ratio = args.devices * found[0]['ms'] / found[1]['ms']
            result['ratios'].append({'remat': remat, 'batch': batch, 'devices': args.devices, 'ratio': ratio})
            say(f'{remat}: {args.devices} devices train {ratio:.3g} times the videos of one')
        probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
