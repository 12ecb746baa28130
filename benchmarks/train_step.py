"""Measures time, memory and the share of the matmul rate of a training step, on one device and on several.

    python benchmarks/train_step.py [--stage cam] [--try none:4 --try nothing_saveable:8] [--devices 2] [--json FILE]
    python benchmarks/train_step.py --json docs/performance/train-step.json --page docs/training.md

Each --try is a remat policy and a batch per device. The step is that of train.py, with random parameters and a pool of
random examples, on which the time does not depend. Steps are chained, and blocks of them are timed. Only operations
that are needed are counted: no weight gradients of frozen layers, nothing that is computed twice. If a try does not fit
into memory, this is recorded. With --devices, each try that fits also runs on all these devices, with the same batch
per device, split over `data`. The second form measures nothing: it writes the numbers into the page, and the memory
that parameters take per device on several meshes, which is calculated.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import probes  # makes st2v_jax importable
from jax.sharding import AbstractMesh, AxisType
from ml_collections import ConfigDict

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
TOKENS = 64  # fewer than in any vocabulary


def networks(config: ConfigDict) -> tuple[str, ...]:
    """The networks that a step of this stage uses."""
    return ('text', 'unet') + ('cam',) * config.memory + ('apm',) * config.anchor


def parameters(config: ConfigDict) -> tuple[build.ModelConfig, Any, Any]:
    """The ModelConfig, and the shapes of trained and of frozen parameters, as a step holds them."""
    model = build.ModelConfig.from_dict(config.model.to_dict())
    trained, frozen = state.split(layout.abstract(model, networks(config)), partial(denoising.is_trained, config))
    return model, trained, jax.eval_shape(partial(build.cast, dtype=jnp.dtype(config.dtype)), frozen)


def pool_shapes(config: ConfigDict, model: build.ModelConfig) -> Data:
    """Shapes of a pool, as made by `pools.make_data`, with one video for each example of a batch."""
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


def random_pool(shapes: Any) -> Any:
    """A pool of random pixels, tokens and latents."""
    random = np.random.default_rng(0)

    def born(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return random.integers(0, TOKENS if leaf.dtype == np.int32 else 256, leaf.shape, leaf.dtype)
        return random.standard_normal(leaf.shape, np.float32).astype(leaf.dtype)

    return jax.tree.map(born, shapes)


class Compiled(NamedTuple):
    """A compiled training step and its arguments, as shapes with shardings.

    Attributes:
      run: the step.
      state: its state.
      frozen: the frozen parameters.
      data: the pool.
      key: the random key.
      seconds: that compiling took.
    """

    run: Any
    state: Any
    frozen: Any
    data: Any
    key: Any
    seconds: float


def compiled(config: ConfigDict, devices: Sequence[jax.Device]) -> Compiled:
    """The step of train.py on some devices, compiled from shapes without allocating anything."""
    model, trained, frozen = parameters(config)
    mesh = sharding.make_mesh({'data': -1, 'fsdp': 1, 'tensor': 1}, devices)
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


def load(args: argparse.Namespace, remat: str, rows: int) -> ConfigDict:
    """The config of a try, with `rows` rows in its batch and in its pool."""
    overrides = {'remat': remat, 'batch_size': str(rows), 'dtype': args.dtype, 'data.scenes': str(rows)}
    return load_config(f'{CONFIGS / args.stage}.py:{args.size}', overrides)[0]


def needed_flops(args: argparse.Namespace, batch: int) -> int:
    """Operations that a step needs for a batch."""
    config = load(args, 'none', batch)
    model, trained, frozen = parameters(config)
    draw, loss = denoising.functions(config, model)
    objective = Objective({}, None, None, draw, loss, loss)
    return step.needed_flops(objective, trained, frozen, pool_shapes(config, model))


def measure(args: argparse.Namespace, remat: str, batch: int, devices: int) -> dict[str, Any]:
    """Measures one try; returns a JSON dict. `fits` is false if the device has too little memory."""
    result = {'remat': remat, 'batch': batch, 'devices': devices}
    try:
        return (
            result | {'fits': True} | timed(compiled(load(args, remat, batch * devices), jax.devices()[:devices]), args)
        )
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return result | {'fits': False, 'error': str(error).splitlines()[0][:200]}


def timed(step: Compiled, args: argparse.Namespace) -> dict[str, Any]:
    """Times and memory of a compiled step, with random parameters."""
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


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


def per_device(stage: str) -> list[dict[str, Any]]:
    """Bytes that stay on each device between steps, at full size, for each of MESHES (data, fsdp, tensor).

    They are those of trained parameters and their average, of the optimizer's state (all float32), and of frozen
    parameters in bfloat16 (vectors in float32).
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


def table(result: dict[str, Any]) -> str:
    """The numbers as lines of the page."""
    rate = result['matmul_tflops']
    lines = [
        BEGIN,
        '',
        f'Measured {result["date"]} on {result["device"]}, jax {result["jax"]}, {result["dtype"]}, stage '
        f'`{result["stage"]}` at {probes.size_name(result)} size. The matrix product {result["matmul_size"]}^3 runs at '
        f'{rate:.0f} TFLOP/s. The command:',
        '',
        f'    {result["command"]}',
        '',
        '| remat | batch per device | devices | ms per step | videos/s | needed TFLOP | share of the matmul rate | '
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
            f'{ratio["ratio"]:.2f} times as many videos per second as one device.',
        ]
    lines += [
        '',
        f'The memory that `{result["stage"]}` takes on each device between steps at full size, in GiB, calculated from '
        'the rules of `st2v_jax/sharding.py`. Activations and the gradient, which is as large as the trained '
        'parameters, come on top.',
        '',
        '| devices | mesh data x fsdp x tensor | parameters and average | optimizer | frozen | total |',
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


def main(argv: list[str] | None = None) -> int:
    """Measures and stores the numbers, or writes the page."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = probes.parser(__doc__, runs=5)
    parser.add_argument(
        '--stage', choices=('video_ldm', 'cam', 'apm'), default='cam', help='training stage (default: %(default)s)'
    )
    parser.add_argument(
        '--try',
        dest='tries',
        type=_try,
        action='append',
        metavar='REMAT:BATCH',
        help='a remat policy and a batch per device; may be repeated (default: none:4 and nothing_saveable:8)',
    )
    parser.add_argument('--devices', type=int, default=1, help='also run on this many devices (default: %(default)s)')
    probes.add_rate_options(parser)
    parser.add_argument('--page', help='write the numbers of --json to this page, and measure nothing')
    args = probes.parse(parser, argv)
    if args.page:
        probes.write_page(args.page, BEGIN, END, table, args.json)
        return 0
    if not 1 <= args.devices <= len(jax.devices()):
        parser.error(f'--devices must be 1 to {len(jax.devices())}, not {args.devices}')
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
            say(f'{remat}: {args.devices} devices train {ratio:.3g} times as many videos per second as one')
        probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
