"""Times the same UNet in PyTorch (diffusers) and here, one after the other on the device of this machine.

    python benchmarks/peer.py --json docs/performance/peer.json
    python benchmarks/peer.py --json docs/performance/peer.json --page docs/performance.md

Both have the same random weights, and their predictions are compared first. PyTorch runs with channels last, eagerly,
compiled, and compiled with CUDA graphs where there is a GPU. Two guidance branches are a batch of two; ours is timed
as such, and in the form of sampling, where the branches share what comes before the first cross-attention. Passes are
chained, each starting from the prediction of the one before. The second form measures nothing: it writes the page.
"""

import argparse
import statistics
import sys
import time
from typing import Any

import denoise_step
import jax
import jax.numpy as jnp
import numpy as np
import probes  # makes st2v_jax importable

from st2v_jax.convert.engine import export
from st2v_jax.convert.to_diffusers import unet_settings
from st2v_jax.convert.unet_tables import UNET
from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.trees import flatten

BEGIN, END = '<!-- figures of benchmarks/peer.py -->', '<!-- end of peer -->'
BRANCHES, STEP = 2, 501  # guidance branches, and the diffusion step of all passes
COMPILED = {'compiled': {}, 'compiled, CUDA graphs': {'mode': 'reduce-overhead'}}


def torch_device() -> str:
    """Where PyTorch runs, which has to be the kind of device that jax uses."""
    import torch

    found = 'cuda' if torch.cuda.is_available() else 'cpu'
    if found != {'gpu': 'cuda'}.get(jax.default_backend(), jax.default_backend()):
        raise SystemExit(f'peer.py: PyTorch sees {found} and jax {jax.default_backend()}; both need the same device')
    return found


def theirs(config: build.ModelConfig, params: Any, given: tuple, args: argparse.Namespace) -> tuple[dict, np.ndarray]:
    """({form: milliseconds of each block}, the prediction [2, f, h, w, c]) of the UNet of diffusers."""
    import diffusers
    import torch

    device, dtype = torch_device(), getattr(torch, args.dtype)
    x, text = (torch.from_numpy(np.array(each, np.float32)).to(device, dtype) for each in given)
    x = x.movedim(-1, 1)
    unet = diffusers.UNet3DConditionModel.from_config(unet_settings(config.backbone))
    tensors = export(flatten(jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), {'unet': params})), UNET)
    unet.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()})
    unet = unet.eval().to(device, dtype)
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}  # of the 2D and the temporal convolutions
    for weight in unet.parameters():
        weight.data = weight.data.contiguous(memory_format=layouts.get(weight.dim(), torch.contiguous_format))
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    times = {}
    with torch.inference_mode():
        prediction = unet(x, STEP, text).sample.movedim(1, -1).float().cpu().numpy()
        forms = {'eager': None} | {name: how for name, how in COMPILED.items() if device == 'cuda' or not how}
        for form, how in forms.items():
            run = unet if how is None else torch.compile(unet, **how)

            def block(run=run):
                now, began = x, time.perf_counter()
                for _ in range(args.runs):
                    now = run(now, STEP, text).sample.clone()  # CUDA graphs write to the same memory again
                wait()
                return 1e3 * (time.perf_counter() - began) / args.runs

            block()
            times[form] = [block() for _ in range(args.blocks)]
            print(f'PyTorch {torch.__version__}, {form}: {statistics.median(times[form]):.4g} ms', flush=True)
    return times, prediction


def ours(
    network: build.Network, params: Any, given: tuple, args: argparse.Namespace, rate: float
) -> tuple[dict, np.ndarray]:
    """({form: numbers of `probes.timed_step`}, the prediction [2, f, h, w, c])."""
    x, text = given
    params = {'unet': params}
    condition = jax.jit(lambda params, text: network(params, text, method='condition'))(params, text)
    t = jnp.full(1, STEP)
    prediction = jax.jit(network)(params, x, jnp.repeat(t, BRANCHES), condition)
    numbers = {}
    for form, videos in (('branches apart', BRANCHES), ('branches share their beginning', 1)):

        def step(params, condition, now, t, videos=videos):
            return network(params, now, t, condition)[:videos]

        inputs = [jnp.repeat(t, videos)]
        state = jnp.array(x[:videos])
        kind = dict(rate=rate, runs=args.runs, blocks=args.blocks)
        numbers[form] = probes.timed_step(step, (params, condition), state, inputs, **kind)
        print(f'here, {form}: {numbers[form]["ms"]:.4g} ms', flush=True)
    return numbers, np.asarray(prediction)


def measure(config: build.ModelConfig, args: argparse.Namespace) -> dict[str, Any]:
    """Measures both; returns a JSON dict."""
    dtype = jnp.dtype(args.dtype).type
    network = build.denoiser(config, dtype)
    params = probes.placed_parameters(network.abstract['unet'], dtype)
    random = np.random.default_rng(1)
    x = np.repeat(random.standard_normal((1, *config.latent_shape), np.float32), BRANCHES, 0)
    text = random.standard_normal((BRANCHES, 77, config.backbone.context_width), np.float32)
    size, rate = probes.matmul_rate(None, dtype, blocks=args.blocks)
    numbers, here = ours(network, params, (jnp.asarray(x), jnp.asarray(text, dtype)), args, rate)
    times, there = theirs(config, params, (x, text), args)
    best = min(statistics.median(blocks) for blocks in times.values())
    return {
        'matmul_size': size,
        'matmul_tflops': rate / 1e12,
        'difference': float(np.linalg.norm(here - there) / np.linalg.norm(there)),
        'theirs': {form: {'ms': statistics.median(blocks), 'ms_blocks': blocks} for form, blocks in times.items()},
        'ours': numbers,
        'ratio': {form: best / found['ms'] for form, found in numbers.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The numbers as lines of the page."""
    rows = [(f'PyTorch {result["torch"]}, {form}', found['ms'], '') for form, found in result['theirs'].items()]
    rows += [(f'here, {form}', found['ms'], f'{result["ratio"][form]:.2f}') for form, found in result['ours'].items()]
    return '\n'.join(
        [
            BEGIN,
            '',
            f'Measured {result["date"]} on {result["device"]}, jax {result["jax"]}, {result["dtype"]}, the UNet at '
            f'{probes.size_name(result)} size. With the same weights, the predictions differ by '
            f'{100 * result["difference"]:.2g} %.',
            '',
            '| two guidance branches | ms | times as fast as the best of PyTorch |',
            '| --- | ---: | ---: |',
            *(f'| {name} | {ms:.1f} | {ratio} |' for name, ms, ratio in rows),
            '',
            END,
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and stores the numbers, or writes the page."""
    parser = probes.parser(__doc__, runs=20)
    parser.add_argument('--page', help='write the numbers in --json to this page, and measure nothing')
    args = probes.parse(parser, argv)
    if args.page:
        probes.write_page(args.page, BEGIN, END, table, args.json)
        return 0
    try:
        config = denoise_step.model_config(args.size)
    except WeightsError as error:
        print(f'peer.py: {error}', file=sys.stderr)
        return 2
    import torch

    result = probes.setting(jax.devices()[0], args) | {'torch': torch.__version__} | measure(config, args)
    for form, ratio in result['ratio'].items():
        print(f'{form}: {ratio:.2f} times as fast as the best of PyTorch')
    print(f'the predictions differ by {100 * result["difference"]:.2g} %')
    probes.store(args.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
