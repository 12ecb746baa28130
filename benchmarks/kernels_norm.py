"""Measures the kernels of group norms and frame convolutions against what XLA makes of the same operation.

    python benchmarks/kernels_norm.py [--json out.json] [--seconds 140]

For every shape of a guided step, of the Refiner and of smaller models: errors against float32, and the time of each
form in a program that runs it many times. If a form fails, the next is tried: processes of their own measure the parts,
each on a card of its own if there are several, and are started again after a crash.
"""

import argparse
import contextlib
import fcntl
import functools
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

RUNS, BLOCKS = 20, 5
STORING = threading.Lock()
SILENCE = 45  # seconds without a word after which a process is given up

# (b, f, h, w, c)
CONVOLUTIONS = (
    (2, 16, 32, 32, 320),
    (2, 16, 16, 16, 640),
    (2, 16, 8, 8, 1280),
    (2, 8, 32, 32, 320),
    (2, 16, 4, 4, 1280),
    (1, 16, 32, 32, 320),
    (3, 16, 32, 32, 320),
    (3, 16, 16, 16, 640),
    (2, 8, 16, 16, 640),
    (2, 8, 8, 8, 1280),
    (1, 24, 90, 160, 320),
    (1, 24, 45, 80, 640),
    (1, 24, 23, 40, 1280),
    (1, 24, 12, 20, 1280),
    (1, 16, 32, 32, 48),
    (1, 4, 8, 8, 8),
)
NORMS = (
    (2, 16, 32, 32, 320),
    (2, 16, 16, 16, 640),
    (2, 16, 8, 8, 1280),
    (2, 16, 32, 32, 960),
    (2, 16, 16, 16, 1920),
    (2, 16, 8, 8, 2560),
    (2, 16, 4, 4, 1280),
    (2, 8, 32, 32, 320),
    (1, 16, 32, 32, 320),
    (3, 16, 32, 32, 320),
    (2, 16, 32, 32, 640),
    (2, 16, 16, 16, 1280),
    (2, 16, 16, 16, 960),
    (2, 16, 4, 4, 2560),
    (1, 24, 90, 160, 320),
    (1, 24, 45, 80, 640),
    (1, 24, 23, 40, 1280),
    (1, 16, 32, 32, 48),
    (1, 4, 8, 8, 8),
)


def of_groups(moment, groups):
    """The mean of each group of channels, for each of its channels."""
    import jax.numpy as jnp

    c = moment.shape[-1]
    return jnp.repeat(moment.reshape(*moment.shape[:-1], groups, c // groups).mean(-1), c // groups, axis=-1)


def convolution_forms(shape):
    """Forms of (x, moments) -> (y, moments) for norm, SiLU and frame convolution."""
    import jax
    import jax.numpy as jnp

    from st2v_jax.kernels import frame_convolution as module

    b, f, h, w, c = shape
    groups = 32 if c % 32 == 0 else 4
    key = jax.random.key(0)
    kernel = (jax.random.normal(key, (3, c, c)) * (3 * c) ** -0.5 * 1.7).astype(jnp.bfloat16)
    bias = 0.1 * jax.random.normal(jax.random.key(1), (c,))

    def affine(mean, square):
        mean, square = (of_groups(m, groups) for m in (mean, square))
        gain = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + 1e-5)
        return gain, -mean * gain

    def xla(state):
        x, mean, square = state
        return module.with_xla(x, *affine(mean, square), kernel.astype(x.dtype), bias)

    def by_products(state):
        """One product with all three taps, then shifted sums."""
        x, mean, square = state
        gain, shift = affine(mean, square)
        v = jax.nn.silu(x.astype(jnp.float32) * gain + shift).astype(x.dtype)
        parts = jnp.einsum('bfhwc,kcn->kbfhwn', v, kernel)
        pad = lambda a, n: jnp.pad(a, ((0, 0), n, (0, 0), (0, 0), (0, 0)))
        y = pad(parts[0, :, :-1], (1, 0)) + parts[1] + pad(parts[2, :, 1:], (0, 1)) + bias.astype(x.dtype)
        wide = y.astype(jnp.float32)
        mean, square = (jnp.mean(of, (1, 2, 3), keepdims=True) for of in (wide, jnp.square(wide)))
        return y, mean, square

    def tiled(state, tile):
        x, mean, square = state
        gain, shift = affine(mean, square)
        both = jnp.stack([gain.reshape(b, c), shift.reshape(b, c)], axis=1)
        y, sums = module.in_tiles(x.reshape(b, f, h * w, c), both, kernel, bias, tile)
        mean, square = jnp.split(jnp.sum(sums, (1, 2)) / (f * h * w), 2, axis=1)
        return y.reshape(shape), mean[:, :, None, None], square[:, :, None, None]

    forms = {'xla': xla}
    tiles = [(16, 128, 2, 2, 2), (16, 64, 2, 2, 2), (8, 64, 1, 2, 2), (8, 128, 1, 2, 2)]
    tiles += [(16, 128, 3, 2, 2), (16, 64, 3, 2, 3), (8, 64, 3, 3, 3)]  # of 24 frames
    if shape in CONVOLUTIONS[:3]:
        tiles += [(16, 128, 2, 3, 2), (8, 128, 2, 3, 3), (16, 64, 2, 3, 3), (16, 64, 1, 2, 2), (32, 128, 2, 2, 2)]
    for tile in tiles:
        tile = module.Tile(*tile)
        if tile.fits((b, f, h * w, c), c):
            forms['kernel ' + ' '.join(map(str, tile))] = functools.partial(tiled, tile=tile)
    if shape in CONVOLUTIONS[:3]:
        forms['products'] = by_products
    x = jax.random.normal(jax.random.key(2), shape).astype(jnp.bfloat16)
    wide = x.astype(jnp.float32)
    moments = [jnp.mean(of, (1, 2, 3), keepdims=True) for of in (wide, wide * wide)]
    return (x, *moments), (wide, *moments), forms


def norm_forms(shape, axes, whole):
    """Forms of the moments of x (x and a number that depends on them -> the same), or of the whole norm with SiLU."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from st2v_jax.kernels import channel_moments as module

    c, groups = shape[-1], 32 if shape[-1] % 32 == 0 else 4
    kept = shape[: len(shape) + min(axes)]
    n, p = int(np.prod(kept)), int(np.prod(shape[min(axes) : -1]))
    back = lambda m: m.reshape(*kept, *(1,) * len(axes), c)

    def ones(x):
        row, x = jnp.ones((n, 8, p), x.dtype), x.reshape(n, p, c)
        dot = lambda a: jnp.einsum('nip,npc->nic', row, a, preferred_element_type=jnp.float32)[:, 0] / p
        return back(dot(x)), back(dot(x * x))

    def two_stages(x, parts):
        wide = x.reshape(n, parts, p // parts, c).astype(jnp.float32)
        return tuple(back(jnp.sum(jnp.sum(a, 2), 1) / p) for a in (wide, wide * wide))

    def joint(x):
        wide = x.reshape(n, p, c).astype(jnp.float32)
        add = lambda a, b: (a[0] + b[0], a[1] + b[1])
        return tuple(back(s / p) for s in jax.lax.reduce((wide, wide * wide), (np.float32(0),) * 2, add, (1,)))

    def tiled(x, tile):
        sums = jnp.sum(module.in_tiles(x.reshape(n, p, c), tile), axis=1) / p
        return back(sums[:, 0]), back(sums[:, 1])

    def registers(x, rows, splits, pairs):
        sums = jnp.sum(_in_registers(x.reshape(n, p // pairs, pairs * c), rows, splits), axis=1)
        sums = sums.reshape(n, 2, pairs, c).sum(2) / p
        return back(sums[:, 0]), back(sums[:, 1])

    forms = {'xla': lambda x: module.with_xla(x, axes)}
    best = module.tile_for((n, p, c))
    if best:
        tiles = [best]
        for rows, stages, more in ((64, 4, 1), (64, 8, 2), (128, 2, 2), (256, 2, 1), (128, 4, 2)):
            steps = p // rows
            if p % rows == 0:
                splits = max(s for s in range(1, steps + 1) if steps % s == 0 and s <= best.splits * more)
                tiles.append(module.Tile(rows, min(stages, steps // splits), splits))
        for tile in dict.fromkeys(tiles):
            forms['kernel ' + ' '.join(map(str, tile))] = functools.partial(tiled, tile=tile)
    pairs = next((k for k in (1, 2, 4) if k * c % 128 == 0), None)
    if pairs and p % pairs == 0:
        rows = next((r for r in (2, 4, 8, 16) if r * pairs * c % 1024 == 0 and (p // pairs) % r == 0), None)
        if rows:
            steps = p // pairs // rows
            for blocks in (264, 792):
                splits = max(s for s in range(1, steps + 1) if steps % s == 0 and s <= max(1, blocks // n))
                form = functools.partial(registers, rows=rows, splits=splits, pairs=pairs)
                forms[f'registers {rows} {splits} {pairs}'] = form
    forms['ones'] = ones
    forms['joint'] = joint
    for parts in (8, 32):
        if p % parts == 0 and p // parts >= 8:
            forms[f'two stages {parts}'] = functools.partial(two_stages, parts=parts)

    def norm(state, moments):
        x, *_ = state
        per_channel = moments(x)
        if not whole:  # the next run depends on this one through one row of x
            return x.at[(0,) * (x.ndim - 1)].set(per_channel[0].reshape(-1, c)[0].astype(x.dtype)), *per_channel
        mean, square = (of_groups(m, groups) for m in per_channel)
        gain = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + 1e-5)
        return jax.nn.silu(x.astype(jnp.float32) * gain - mean * gain).astype(x.dtype), *per_channel

    if whole:
        forms = {name: form for name, form in forms.items() if 'stages' not in name and name != 'joint'}
        kernels = [name for name in forms if name.startswith('kernel')]
        for name in kernels[2:]:
            del forms[name]
    x = (jax.random.normal(jax.random.key(2), shape) + 0.3).astype(jnp.bfloat16)
    zeros = [jnp.zeros((*kept, *(1,) * len(axes), c))] * 2
    forms = {name: functools.partial(norm, moments=form) for name, form in forms.items()}
    return (x, *zeros), (x.astype(jnp.float32), *zeros), forms


def _in_registers(x, rows, splits):
    """Sums of x [n, p, c] and of its square, [n, splits, 2, c], read in the order of memory without shared memory."""
    import jax
    import jax.numpy as jnp
    from jax import lax
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import mosaic_gpu as plgpu

    n, p, c = x.shape
    steps = p // rows // splits
    flat = plgpu.Layout.WG_STRIDED((rows, c), vec_size=8)
    line = plgpu.Layout.WG_STRIDED((c,), vec_size=1)

    def body(x, out, both):
        row, part = lax.axis_index('row'), lax.axis_index('part')

        def step(k, carry):
            total, square = carry
            v = plgpu.load(x, (row, pl.ds((part * steps + k) * rows, rows)), layout=flat).astype(jnp.float32)
            return total + v, square + v * v

        zero = plgpu.layout_cast(jnp.zeros((rows, c), jnp.float32), flat)
        for i, total in enumerate(lax.fori_loop(0, steps, step, (zero, zero))):
            both[i] = total
        plgpu.commit_smem()
        for i in range(2):
            line_sum = plgpu.load(both, (i, 0), layout=line)
            for r in range(1, rows):
                line_sum = line_sum + plgpu.load(both, (i, r), layout=line)
            out[row, part, i] = line_sum

    return plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((n, splits, 2, c), jnp.float32),
        scratch_types=(plgpu.SMEM((2, rows, c), jnp.float32),),
        grid=(n, splits),
        grid_names=('row', 'part'),
    )(x)


def tasks(part):
    """(name, function that makes the forms) of a part."""
    frame, video = (-3, -2), (-4, -3, -2)
    if part == 'convolution':
        return [(f'convolution {s}', functools.partial(convolution_forms, s)) for s in CONVOLUTIONS]
    whole = part == 'norm'
    return [
        (f'{part} {kind} {s}', functools.partial(norm_forms, s, axes, whole))
        for s in NORMS
        for kind, axes in (('frame', frame), ('video', video))
    ]


@contextlib.contextmanager
def card():
    """The card for this process alone, of those that compile for it at the same time."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES', 'any').replace(',', '-')
    with open(Path(tempfile.gettempdir()) / f'kernels_norm-{visible}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def work(part, share, skip):
    """One process: measures the forms of its share and prints a line of JSON for each."""
    import jax
    import jax.numpy as jnp

    index, count = map(int, share.split('/'))
    say = lambda **what: print(json.dumps(what), flush=True)
    for name, make in tasks(part)[index::count]:
        if f'{name} | xla' in skip and f'{name} | END' in skip:
            continue
        state, wide, forms = make()
        xla = forms['xla']
        with jax.default_matmul_precision('highest'):
            reference = jax.jit(xla)(wide)
        scale = jnp.linalg.norm(reference[0])
        for form, function in forms.items():
            label = f'{name} | {form}'
            if label in skip:
                continue
            say(begin=label)
            try:
                repeat = lambda s, function=function: jax.lax.fori_loop(0, RUNS, lambda _, s: function(s), s)
                with contextlib.nullcontext() if form.startswith(('kernel', 'registers')) else card():
                    began = time.perf_counter()  # XLA compares its own algorithms on the card
                    once, repeated = (jax.jit(f).lower(state).compile() for f in (function, repeat))
                    seconds = time.perf_counter() - began
                with card():
                    got = jax.block_until_ready(once(state))
                    jax.block_until_ready(repeated(state))
                    times = []
                    for _ in range(BLOCKS):
                        began = time.perf_counter()
                        jax.block_until_ready(repeated(state))
                        times.append((time.perf_counter() - began) / RUNS)
                error = float(jnp.linalg.norm(got[0].astype(jnp.float32) - reference[0]) / scale)
                moments = max(
                    float(jnp.max(jnp.abs(g - r)) / jnp.max(jnp.abs(r))) for g, r in zip(got[1:], reference[1:])
                )
                micro = 1e6 * statistics.median(times)
                say(form=label, us=micro, error=error, moments=moments, first_s=seconds)
            except Exception as error:  # whatever a compiler says; the next form may work
                say(form=label, failed=' | '.join(f'{type(error).__name__}: {error}'.splitlines()[:4])[:600])
        say(form=f'{name} | END')


def lead(part, share, card, deadline, results, stored):
    """Runs the processes of a share, one after another crash, until all is done or time is up."""
    done = []
    environment = os.environ | ({'CUDA_VISIBLE_DEVICES': str(card)} if card is not None else {})
    environment.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    while time.monotonic() < deadline:
        command = [sys.executable, __file__, '--part', part, '--share', share, '--skip', json.dumps(done)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        lines, errors = queue.Queue(), []
        reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout] + [lines.put(None)])
        listener = threading.Thread(target=lambda: errors.extend(process.stderr))
        reader.start(), listener.start()
        current, ended = None, False
        while True:
            try:
                line = lines.get(timeout=max(0.1, min(SILENCE, deadline - time.monotonic())))
            except queue.Empty:
                process.kill()
                break
            if line is None:
                ended = True
                break
            if not line.startswith('{'):
                continue
            heard = json.loads(line)
            if 'begin' in heard:
                current = heard['begin']
                continue
            done.append(heard['form'])
            current = None
            if not heard['form'].endswith('END'):
                keep(heard, results, stored)
        code = process.wait()
        reader.join(), listener.join()
        if ended and code == 0:
            return
        if time.monotonic() < deadline or current:
            why = 'out of time or stuck' if not ended else f'exit code {code}: ' + ''.join(errors)[-300:]
            heard = {'form': current or f'{part} {share} | start', 'failed': why}
            keep(heard, results, stored)
            done.append(heard['form'])
        if current is None:
            return


def keep(heard, results, stored):
    """Keeps a result, stores all so far and prints it."""
    results.append(heard)
    if stored:
        with STORING:
            Path(stored).write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    if 'failed' in heard:
        print(f'{heard["form"]}: FAILED {heard["failed"]}', flush=True)
    else:
        print(
            '{form}: {us:.1f} us, error {error:.2e}, moments {moments:.1e}, {first_s:.1f} s'.format(**heard), flush=True
        )


def main():
    """Starts the processes, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', help='file for the numbers, written after each of them')
    parser.add_argument('--seconds', type=float, default=140, help='when to stop (default: %(default)s)')
    parser.add_argument('--cards', type=int, default=4, help='how many there are (default: %(default)s)')
    parser.add_argument('--only', help='a part: convolution, moments or norm')
    for hidden in ('--part', '--share', '--skip'):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        return work(args.part, args.share, set(json.loads(args.skip)))
    shares = [('convolution', '0/2'), ('convolution', '1/2'), ('moments', '0/1'), ('norm', '0/1')]
    shares = [s for s in shares if args.only in (None, s[0])]
    deadline, results = time.monotonic() + args.seconds, []
    threads = [
        threading.Thread(target=lead, args=(*s, i % args.cards if args.cards else None, deadline, results, args.json))
        for i, s in enumerate(shares)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summarise(results)


def summarise(results):
    """Prints, for every shape, XLA's time and error and those of the best other form."""
    by_name = {}
    for heard in results:
        name, _, form = heard['form'].partition(' | ')
        if 'us' in heard:
            by_name.setdefault(name, {})[form] = heard
    print('--- best of each')
    for name, forms in sorted(by_name.items()):
        ordered = sorted(forms, key=lambda form: forms[form]['us'])
        print(name + ': ' + ', '.join(f'{form} {forms[form]["us"]:.1f}' for form in ordered[:4]), end='')
        print(f'; xla {forms["xla"]["us"]:.1f}, error {forms["xla"]["error"]:.1e}' if 'xla' in forms else '')


if __name__ == '__main__':
    main()
