"""Takes the released model from its published files to a video, and measures each part: time, memory, the plan.

    python benchmarks/full_size.py [--size full] [--json docs/performance/full-size.json]
    python benchmarks/full_size.py --page docs/weights.md --json docs/performance/full-size.json

Files with random numbers, in the published formats and under the published names, are written to --folder. Then the
steps of a user are timed: st2v convert; loading onto the device, with the converted files dropped from the cache of the
system before, so that they are read from the disk; the plan; and a video, after a first run to compile its programs.
The second form writes the numbers into the page.
"""

import argparse
import contextlib
import datetime
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import jax  # noqa: E402
import numpy as np  # noqa: E402
import probes  # noqa: E402
import torch_files  # noqa: E402

from st2v_jax.convert.to_diffusers import export  # noqa: E402
from st2v_jax.diffusion import sampling  # noqa: E402
from st2v_jax.models.system import encode_prompt  # noqa: E402
from st2v_jax.planning import video as planning  # noqa: E402
from st2v_jax.planning.device import measure  # noqa: E402
from st2v_jax.storage.containers import read  # noqa: E402
from st2v_jax.streaming import generate as text_to_video  # noqa: E402
from st2v_jax.streaming import stream  # noqa: E402
from st2v_jax.streaming.settings import SampleSettings  # noqa: E402
from st2v_jax.streaming.stream import video_keys  # noqa: E402
from st2v_jax.weights.folder import save  # noqa: E402

PROMPT = 'a red ball bounces over a meadow'
MANIFESTS = {  # file: manifest, as it is published
    'streaming_t2v.ckpt': 'streaming_t2v_ckpt',
    'text-to-video-ms-1.7b/unet/diffusion_pytorch_model.safetensors': 'ms17b_unet',
    'text-to-video-ms-1.7b/vae/diffusion_pytorch_model.safetensors': 'ms17b_vae',
    'text-to-video-ms-1.7b/text_encoder/model.safetensors': 'ms17b_text_encoder',
}
BEGIN, END = '<!-- figures of benchmarks/full_size.py -->', '<!-- end of figures -->'


def write_full(folder: Path) -> Path:
    """Writes the files of MANIFESTS with random numbers: the checkpoint in float32, the diffusers folder in float16."""
    noise = np.random.default_rng(0).standard_normal(1 << 26, np.float32) * np.float32(0.02)
    for name, manifest in MANIFESTS.items():
        shapes = json.loads((ROOT / 'tests' / 'manifests' / f'{manifest}.json').read_text())['tensors']
        numbers = noise if name.endswith('.ckpt') else noise.astype(np.float16)
        # Views of the same numbers take neither time nor memory.
        arrays = {key: numbers[: int(np.prod(shape))].reshape(shape) for key, shape in shapes.items()}
        _write(folder / name, arrays)
    return folder


def write_tiny(folder: Path) -> Path:
    """Writes the same files for a tiny model, to test this program."""
    from configs import common
    from st2v_jax.data.caption_tokens import world_tokenizer
    from st2v_jax.models import build

    config = build.ModelConfig.from_dict(common.model('tiny').to_dict())
    doors = {'vae': build.vae, 'text': build.text_tower, 'image': build.image_tower}
    params = {name: build.init(jax.random.key(0), door(config)) for name, door in doors.items()}
    params |= build.init(jax.random.key(0), build.denoiser(config))
    with tempfile.TemporaryDirectory() as ours:
        save(ours, config, params, tokenizer=world_tokenizer())
        export(ours, folder)
    file = folder / 'streaming_t2v.safetensors'
    _write(file.with_suffix('.ckpt'), dict(read(file)))
    file.unlink()
    return folder


def _write(file, arrays):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == '.ckpt':
        torch_files.checkpoint('zip', file, arrays, wrapped=True)
    else:
        torch_files.safetensors(file, arrays)


def forget(folder: Path) -> None:
    """Drops the files of a folder from the cache of the system, if it allows that."""
    for file in folder.rglob('*.safetensors'):
        with open(file, 'rb') as stream, contextlib.suppress(AttributeError, OSError):
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(function: Callable, *args: Any) -> tuple[Any, float]:
    """The result of a function, and the seconds until the device has it."""
    began = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return result, time.perf_counter() - began


def stage_times(
    model: text_to_video.Model, settings: SampleSettings, num_frames: int, at_most: int | None = None
) -> dict[str, float]:
    """Seconds of one run of each stage of `planning.stages`, with the programs of `stream`.

    at_most: the number of steps to run of each chunk, for a run that only compiles; None runs all.
    """
    system, params, found = model.system, model.params, {}
    ids, null_ids = model.tokenizer.ids([PROMPT]), model.tokenizer.ids([''])
    prompt, found['prompt'] = timed(encode_prompt, system, params, ids, null_ids)
    state = stream.start(video_keys([0]))
    programs = stream.programs(system, settings)
    for chunk in range(model.config.contract.chunks(num_frames)):
        name = 'later chunk' if chunk else 'first chunk'
        (x, condition), found[f'{name}, condition'] = timed(programs.begin, params, prompt, state)
        levels = stream.levels_of(system, settings, state)
        count = at_most or len(levels.t) - 1
        trajectory, inputs = sampling.begin(x, levels), sampling.steps(levels)

        def run(trajectory):
            for i in range(count):
                now = jax.tree.map(lambda leaf, i=i: leaf[i], inputs)
                trajectory = programs.step(params, condition, state, trajectory, now)
            return trajectory

        trajectory, seconds = timed(run, trajectory)
        found[f'{name}, step'] = seconds / count
        latents = stream.new_latents(system, trajectory.x, state)
        frames, found[f'{name}, decoding'] = timed(programs.decode, params, latents)
        state, found[f'{name}, memory'] = timed(programs.remember, params, frames, state)
        if not np.isfinite(np.asarray(frames)).all():
            raise ValueError(f'{name}: not all pixels are finite')
    return found


def run(size: str, folder: Path, num_frames: int, steps: int) -> dict[str, Any]:
    """Measures all numbers of the page; returns a JSON dict."""
    device = jax.local_devices()[0]
    result = {
        'date': datetime.date.today().isoformat(),
        'device': device.device_kind,
        'jax': jax.__version__,
        'size': size,
        'frames': num_frames,
        'steps': steps,
    }
    source, result['writing_s'] = _clocked(write_full if size == 'full' else write_tiny, folder / 'published')
    result['published_gb'] = _gigabytes(source)
    _say(f'{result["published_gb"]:.1f} GB written in {result["writing_s"]:.0f} s')

    command = [sys.executable, '-m', 'st2v_jax', 'convert', '--quiet', '--from', source, '--to', folder / 'weights']
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    convert = lambda: subprocess.run(command, check=True, env=environment)
    _, result['converting_s'] = _clocked(convert)
    result['converting_memory_gb'] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    shutil.rmtree(source)
    result['converted_gb'] = _gigabytes(folder / 'weights')
    _say(f'converted in {result["converting_s"]:.0f} s to {result["converted_gb"]:.1f} GB')

    abstract = planning.abstract_model(folder / 'weights')
    settings = abstract.settings(steps=steps)
    rates, result['probe_s'] = _clocked(measure)
    found, result['planning_s'] = _clocked(planning.stages, abstract, settings, num_frames)
    result |= {
        'rates': {
            'product_bandwidth': rates.product_bandwidth,
            'bandwidth': rates.bandwidth,
            'launch': rates.launch,
            'argument': rates.argument,
            **rates.flops,
        },
        'parameters': planning.parameters(abstract),
    }

    forget(folder / 'weights')
    model, result['loading_s'] = _clocked(lambda: _ready(text_to_video.load(folder / 'weights')))
    _say(f'loaded in {result["loading_s"]:.1f} s')
    _, result['compiling_s'] = _clocked(stage_times, model, settings, num_frames, 1)
    _say(f'compiled in {result["compiling_s"]:.0f} s')
    measured = stage_times(model, settings, num_frames)
    result['stages'] = [
        {
            'name': stage.name,
            'times': stage.repeats,
            'tflop': stage.cost.flops / 1e12,
            'planned_ms': 1e3 * stage.seconds(rates),
            'measured_ms': 1e3 * measured[stage.name],
            'planned_by_kind_ms': _by_kind(stage.cost, rates),
        }
        for stage in found
    ]
    total = lambda what: sum(stage['times'] * stage[what] for stage in result['stages']) / 1e3
    stats = device.memory_stats() or {}
    result |= {
        'planned_s': total('planned_ms'),
        'measured_s': total('measured_ms'),
        'planned_gib': planning.peak(found, abstract) / 2**30,
        'measured_gib': stats['peak_bytes_in_use'] / 2**30 if 'peak_bytes_in_use' in stats else None,
    }
    return result


def _by_kind(cost, rates):
    """Milliseconds of the plan by kind of kernel, which help to improve the plan."""
    kinds = {}
    for kernel in cost.kernels:
        kinds[kernel.kind] = kinds.get(kernel.kind, 0) + 1e3 * kernel.repeats * rates.seconds(kernel)
    return kinds


def _clocked(function, *args):
    began = time.perf_counter()
    return function(*args), time.perf_counter() - began


def _ready(model):
    jax.block_until_ready(model.params)
    return model


def _gigabytes(folder):
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e9


def _say(text):
    print(text, flush=True)


def table(result: dict[str, Any]) -> str:
    """The numbers as lines of the page."""
    memory = 'unknown' if result['measured_gib'] is None else f'{result["measured_gib"]:.2f} GiB'
    lines = [
        BEGIN,
        '',
        f'Measured {result["date"]} on one {result["device"]}, jax {result["jax"]}, with random weights in the '
        'published formats. The commands:',
        '',
        '    python benchmarks/full_size.py --json docs/performance/full-size.json',
        '    python benchmarks/full_size.py --json docs/performance/full-size.json --page docs/weights.md',
        '',
        '| | |',
        '| --- | ---: |',
        f'| published files, streaming_t2v.ckpt in float32 | {result["published_gb"]:.1f} GB |',
        f'| converting them to float16, {result["converted_gb"]:.1f} GB | {result["converting_s"]:.0f} s |',
        f'| largest memory of the converting process | {result["converting_memory_gb"]:.2f} GB |',
        f'| loading onto the device, from the disk | {result["loading_s"]:.1f} s |',
        f'| parameters on the device | {sum(result["parameters"].values()) / 1e6:,.0f} M |',
        f'| {result["frames"]} frames at {result["steps"]} steps: measured | {result["measured_s"]:.2f} s |',
        f'| planned by `sample.py --plan` | {result["planned_s"]:.2f} s |',
        f'| largest device memory: measured | {memory} |',
        f'| planned | {result["planned_gib"]:.2f} GiB |',
        '',
        '| stage | times | TFLOP | planned, ms | measured, ms |',
        '| --- | ---: | ---: | ---: | ---: |',
    ]
    for stage in result['stages']:
        lines.append(
            f'| {stage["name"]} | {stage["times"]} | {stage["tflop"]:.3g} | {stage["planned_ms"]:.3g} | '
            f'{stage["measured_ms"]:.3g} |'
        )
    return '\n'.join([*lines, '', END])


def main(argv: list[str] | None = None) -> int:
    """Measures and stores the numbers, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=('full', 'tiny'), default='full', help='model size (default: %(default)s)')
    parser.add_argument('--folder', help='folder for the files, which take 32 GB (default: a temporary folder)')
    parser.add_argument('--frames', type=int, default=24, help='frames of the video (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=50, help='denoising steps (default: %(default)s)')
    parser.add_argument('--json', help='file for the numbers')
    parser.add_argument('--page', help='write the numbers of --json to this page, and measure nothing')
    arguments = parser.parse_args(argv)
    if arguments.page:
        probes.write_page(arguments.page, BEGIN, END, table, arguments.json)
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = run(arguments.size, Path(folder), arguments.frames, arguments.steps)
    print(table(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
