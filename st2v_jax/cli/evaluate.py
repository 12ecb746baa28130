"""`python evaluate.py COMMAND`: what a model's long videos show, and what refinement makes of them, in numbers."""

import argparse
import datetime
import json
import os
import shlex
import sys
import time
from pathlib import Path

EPILOG = """\
One after the other:
  python evaluate.py train-checker --checker runs/checker.npz --weights runs/apm/weights
  python evaluate.py generate --weights runs/apm/weights --checker runs/checker.npz --out runs/evaluation
  python evaluate.py report --results docs/small-model/results.json \\
    --training docs/small-model/training/*.json --output docs/small-model.md
generate measures what it makes; measure does it again for videos that were kept.
The refinement stage, on videos that were kept:
  python evaluate.py refine --weights runs/refiner/weights --videos runs/evaluation/videos.npz --out runs/refinement
  python evaluate.py refinement-report --results docs/refinement/results.json \\
    --training docs/refinement/training/*.json --output docs/refinement.md
"""
SHEET_FRAMES = (1, 8, 16, 32, 64, 120, 180, 240)
VARIANTS = ('B', 'B+S', 'paper', 'release')  # as refinement/blend.py has them, which would take a while to import


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults beside the help, where there is one."""

    def _get_help_string(self, action):
        bare = action.default is None or action.default is False or action.default == []
        return action.help if bare else super()._get_help_string(action)


def main(argv=None) -> int:
    """Exit code: 0 done, 1 out of device memory or no pictures, 2 bad input."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = _parse(argv)
    options.command_line = 'python evaluate.py ' + shlex.join(argv)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    except FloatingPointError as error:
        return _fail(error, 1)
    except RuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return _fail('out of device memory: lower --batch', 1)


def _parse(argv):
    parser = argparse.ArgumentParser(prog='evaluate.py', description=__doc__, epilog=EPILOG, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    def command(name, run, text):
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False,
                                    formatter_class=_Help)
        added.set_defaults(run=run)
        return added

    train = command('train-checker', train_checker, 'train the network that reads colour, shape and motion from clips')
    train.add_argument('--checker', type=Path, required=True, help='npz file to write')
    train.add_argument('--seconds', type=float, default=80, help='of training, after the compilation')
    train.add_argument('--steps', type=int, default=100_000, help='at most')
    train.add_argument('--size', type=int, help='pixels of a frame (default: of the weights, else 128)')
    train.add_argument('--batch', type=int, default=64, help='clips of 16 frames')
    train.add_argument('--weights', type=Path, help='a model; its autoencoder softens some of the clips')
    train.add_argument('--seed', type=int, default=1_000_003, help='of the world and of the network')
    train.add_argument('--tiny', action='store_true', help='a few channels and clips: runs the program, learns nothing')

    make = command('generate', generate, 'make long videos of unseen captions, measure them, draw sheets')
    make.add_argument('--weights', type=Path, help='folder of a model (default: the shipped one)')
    make.add_argument('--checker', type=Path, required=True, help='npz file of train-checker')
    make.add_argument('--out', type=Path, required=True, help='folder for results.json, sheets and kept videos')
    make.add_argument('--captions', type=int, default=64, help='videos to make')
    make.add_argument('--frames', type=int, default=240, help='of each')
    make.add_argument('--seed', type=int, default=2_000_003, help='of the world and of the noise')
    make.add_argument('--batch', type=int, default=32, help='videos made at once')
    make.add_argument('--dtype', choices=('float32', 'bfloat16'), help='default: bfloat16 on an accelerator')
    make.add_argument('--steps', type=int, help='denoising steps of a chunk (default: as sample.py)')
    make.add_argument('--profile', choices=('paper', 'release'))
    make.add_argument('--guidance-text', type=float, help='of the first chunk too, unless --first-guidance is given')
    make.add_argument('--guidance-anchor', type=float)
    make.add_argument('--first-guidance', type=float)
    make.add_argument('--guidance-rescale', type=float)
    make.add_argument('--sheet', type=int, default=8, help='videos on the sheets')
    make.add_argument('--keep', type=int, default=8, help='videos kept in videos.npz as JPEG frames')
    make.add_argument('--nearest', type=int, default=4096, help='training scenes to compare with; 0 for none')
    make.add_argument('--train-seed', type=int, default=0, help='config.data.seed of the training')

    again = command('measure', measure, 'measure the videos that generate kept')
    again.add_argument('--videos', type=Path, required=True, help='videos.npz of generate')
    again.add_argument('--checker', type=Path, required=True)
    again.add_argument('--output', type=Path, required=True, help='JSON file to write')

    write = command('report', report, 'write the page about the small model from stored JSON')
    write.add_argument('--results', type=Path, required=True, help='results.json of generate')
    write.add_argument('--training', type=Path, nargs='*', default=[],
                       help="summary.json of train.py's stages, in order")
    write.add_argument('--output', type=Path, required=True, help='Markdown file to write')

    finer = command('refine', refine, 'refine videos in all variants, measure and draw them')
    finer.add_argument('--weights', type=Path, help='folder of a model with a Refiner (default: the shipped one)')
    finer.add_argument('--out', type=Path, required=True, help='folder for results.json and pictures')
    finer.add_argument('--videos', type=Path, help='videos.npz of generate (default: the model makes some)')
    finer.add_argument('--captions', type=int, default=16, help='videos to refine, at most')
    finer.add_argument('--world', type=int, default=8, help='of their scenes to refine as the world draws them')
    finer.add_argument('--frames', type=int, default=240, help='of each video that the model makes')
    finer.add_argument('--batch', type=int, default=32, help='videos that the model makes at once')
    finer.add_argument('--seed', type=int, default=2_000_003, help='of the world and of the noise')
    finer.add_argument('--variants', nargs='+', choices=VARIANTS, default=VARIANTS)
    finer.add_argument('--dtype', choices=('float32', 'bfloat16'), help='default: bfloat16 on an accelerator')
    finer.add_argument('--steps', type=int, help='denoising steps (default: of the model, as the three below)')
    finer.add_argument('--start', type=int, help='entry of the table where SDEdit begins')
    finer.add_argument('--guidance', type=float)
    finer.add_argument('--rescale', type=float)

    wrote = command('refinement-report', refinement_report, 'write the page about refinement from stored JSON')
    wrote.add_argument('--results', type=Path, required=True, help='results.json of refine')
    wrote.add_argument('--training', type=Path, nargs='*', default=[], help="summary.json of train.py's stages")
    wrote.add_argument('--output', type=Path, required=True, help='Markdown file to write')

    options = parser.parse_args(argv)
    for name in ('captions', 'frames', 'batch', 'steps', 'sheet', 'size', 'seconds', 'start'):
        value = getattr(options, name, None)
        if value is not None and value <= 0:
            parser.error(f'--{name} is more than 0, not {value}')
    return options


def train_checker(options):
    """Trains on rendered clips, then measures on fresh ones that nothing softened."""
    import jax

    from st2v_jax.evaluation import checker as attributes
    from st2v_jax.models import build
    from st2v_jax.open_model import load_weights

    dtype, size, reconstruct = _dtype(None), options.size, None
    if options.weights:
        config, params = load_weights(options.weights, ('vae',))
        size = size or min(config.frame_size)
        reconstruct = _round_trip(build.vae(config, dtype), params['vae'])
    size = size or 128
    channels = (8, 8) if options.tiny else attributes.CHANNELS
    batch, batches = (4, 1) if options.tiny else (options.batch, 8)
    sample = attributes.world_clips(options.seed, size)
    heads = {name: len(classes) for name, classes in attributes.CLASSES.items()}
    began = time.monotonic()
    params, history = attributes.train(
        jax.random.key(options.seed), sample, heads, seconds=options.seconds, steps=options.steps, batch=batch,
        channels=channels, reconstruct=reconstruct, dtype=dtype, report=_say_row)
    accuracy = attributes.accuracy(
        params, sample, jax.random.key(options.seed + 1), batches=batches, batch=batch)
    about = {
        'date': datetime.date.today().isoformat(), 'device': jax.devices()[0].device_kind, 'size': size,
        'seed': options.seed, 'batch': batch, 'seconds': time.monotonic() - began,
        'steps': history[-1]['step'] if history else 0, 'classes': attributes.CLASSES, 'accuracy': accuracy,
        'history': history, 'command': options.command_line,
    }
    options.checker.parent.mkdir(parents=True, exist_ok=True)
    attributes.save(options.checker, params, about)
    print('fresh clips: ' + ', '.join(f'{name} {100 * share:.1f} %' for name, share in accuracy.items()))
    print(f'checker: {options.checker}')
    return 0


def _round_trip(vae, params):
    """clips [n,f,h,w,3] -> clips through the autoencoder."""
    from einops import rearrange

    def reconstruct(clips):
        frames = rearrange(clips, 'n f h w c -> (n f) h w c')
        latents, _ = vae(params, frames, method='encode')
        return vae(params, latents, method='decode').astype(clips.dtype).reshape(clips.shape)

    return reconstruct


def _say_row(row):
    if row['step'] % 500 == 0:
        numbers = ', '.join(f'{name} {value:.3f}' for name, value in row.items() if name not in ('step', 'seconds'))
        print(f'step {row["step"]}, {row["seconds"]:.0f} s: {numbers}', flush=True)


def generate(options):
    """Makes the videos, then everything that can be said and shown of them."""
    import jax
    import numpy as np

    from st2v_jax.evaluation import checker as attributes
    from st2v_jax.evaluation import pictures, survey
    from st2v_jax.streaming import generate as text_to_video

    checker = attributes.load(options.checker)
    model = text_to_video.load(options.weights, _dtype(options.dtype))
    config = model.config
    if (checker[1]['size'],) * 2 != config.frame_size:
        raise ValueError(f'{options.checker} is for {checker[1]["size"]} pixels, the model makes {config.frame_size}')
    chosen = ('profile', 'steps', 'guidance_text', 'guidance_anchor', 'first_guidance', 'guidance_rescale')
    settings = model.settings(
        **{name: getattr(options, name) for name in chosen if getattr(options, name) is not None})
    survey.places(options.frames)
    options.out.mkdir(parents=True, exist_ok=True)
    indices, scenes = survey.unseen_scenes(options.seed, options.captions)
    prompts = survey.captions(scenes)
    began = time.monotonic()
    videos = make_videos(model, settings, prompts, options.frames, seed=options.seed, batch=options.batch)
    results = {'made': {
        'date': datetime.date.today().isoformat(), 'device': jax.devices()[0].device_kind, 'jax': jax.__version__,
        'devices': len(jax.devices()), 'dtype': np.dtype(_dtype(options.dtype)).name, 'command': options.command_line,
        'captions': len(prompts), 'frames': options.frames, 'size': config.frame_size[0], 'seed': options.seed,
        'settings': vars(settings), 'seconds': time.monotonic() - began,
    }}
    print(f'{len(prompts)} videos of {options.frames} frames in {results["made"]["seconds"]:.0f} s', flush=True)
    pictures.keep(options.out / 'videos.npz', videos[: options.keep], indices[: options.keep], options.seed)
    results |= survey.survey(videos, scenes, checker)
    results['checker'] = _about(checker)
    if options.nearest:
        results['nearest'] = pictures.nearest_to(videos, scenes, options.train_seed, options.nearest)
    numbers = [n for n in SHEET_FRAMES if n < options.frames] + [options.frames]
    results['pictures'] = pictures.draw(options.out, videos, scenes, prompts, numbers, results, count=options.sheet)
    _write_json(options.out / 'results.json', results)
    _say(results)
    print(f'results: {options.out / "results.json"}')
    return 0


def make_videos(model, settings, prompts, num_frames, *, seed, batch):
    """uint8 videos [n, num_frames, h, w, 3] of n prompts by a text_to_video.Model, `batch` at once over all devices.

    A video depends on its prompt, its number and the seed, not on the batch that it is made in (but for rounding).
    """
    import jax
    import numpy as np

    from st2v_jax import sharding
    from st2v_jax.models.system import encode_prompt
    from st2v_jax.streaming import stream
    from st2v_jax.streaming.generate import first_frames
    from st2v_jax.video_io import to_uint8

    mesh = sharding.make_mesh({sharding.DATA: -1})
    devices = mesh.shape[sharding.DATA]
    batch = -(-min(batch, len(prompts)) // devices) * devices
    params = jax.device_put(model.params, sharding.replicated(mesh))
    place = lambda tree: jax.device_put(tree, sharding.split_rows(mesh))
    videos = []
    for first in range(0, len(prompts), batch):
        numbers = np.minimum(np.arange(first, first + batch), len(prompts) - 1)  # the last batch is filled up
        ids, null_ids = (model.tokenizer.ids(texts) for texts in ([prompts[i] for i in numbers], [''] * batch))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
        context = encode_prompt(model.system, params, *place((ids, null_ids)))
        state = stream.start(place(keys))
        chunks = (frames for frames, _ in stream.stream(model.system, settings, params, context, state))
        frames = [to_uint8(chunk) for chunk in first_frames(chunks, num_frames)]
        videos.append(np.concatenate(frames, 1)[: len(prompts) - first])
        print(f'{first + len(videos[-1])} of {len(prompts)} videos', flush=True)
    return np.concatenate(videos)


def measure(options):
    """Measures kept videos again, with whatever checker there is now."""
    from st2v_jax.evaluation import checker as attributes
    from st2v_jax.evaluation import pictures, survey

    checker = attributes.load(options.checker)
    videos, indices, seed = pictures.kept(options.videos)
    results = survey.survey(videos, survey.many_scenes(seed, indices), checker)
    results['checker'] = _about(checker)
    _write_json(options.output, results)
    _say(results)
    return 0


def refine(options):
    """Refines generated videos, and videos of the world whose larger truth is known."""
    import jax
    import numpy as np

    from st2v_jax.evaluation import comparison as refinement
    from st2v_jax.evaluation import pictures, survey
    from st2v_jax.refinement import enhancer as video_to_video
    from st2v_jax.streaming import generate as text_to_video

    dtype = _dtype(options.dtype)
    enhancer = video_to_video.load_enhancer(options.weights, dtype)
    chosen = ('steps', 'start', 'guidance', 'rescale')
    chosen = {name: getattr(options, name) for name in chosen if getattr(options, name) is not None}
    settings = enhancer.settings(**chosen)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.videos:
        videos, indices, seed = pictures.kept(options.videos)
        videos, scenes = videos[: options.captions], survey.many_scenes(seed, indices[: options.captions])
    else:
        indices, scenes = survey.unseen_scenes(options.seed, options.captions)
        model = text_to_video.load(options.weights, dtype)
        videos = make_videos(model, model.settings(), survey.captions(scenes), options.frames, seed=options.seed,
                             batch=options.batch)
        pictures.keep(options.out / 'videos.npz', videos, indices, options.seed)
    prompts, plan = survey.captions(scenes), settings.plan(videos.shape[1])
    numbers = [n for n in SHEET_FRAMES if n < plan.frames][::2] + [plan.frames]
    known = jax.tree.map(lambda leaf: np.asarray(leaf)[: options.world], scenes)
    small, large = videos.shape[2], enhancer.canvas(videos.shape[2:4]).size[0]
    began = time.monotonic()
    results = {}
    for name, inputs, truth in (
        ('generated', videos, None),
        ('world', *(survey.rendering(known, range(plan.frames), size) for size in (small, large))),
    ):
        made = refinement.all_refined(enhancer, inputs, prompts, options.variants, seed=options.seed, **chosen)
        inputs = refinement.enlarged(enhancer, inputs)
        kinds = {'input': inputs, **made} | ({} if truth is None else {'truth': truth})
        print(f'{name}: {len(inputs)} videos refined after {time.monotonic() - began:.0f} s', flush=True)
        results[name] = {'kinds': refinement.compared(inputs, made, plan, truth),
                         'pictures': refinement.draw(options.out, name, kinds, prompts[:len(inputs)], numbers)}
        for kind, found in results[name]['kinds'].items():
            print(f'  {kind}: ' + ', '.join(f'{row} {np.mean(values):.3f}' for row, values in found.items()))
    results = {'made': {
        'date': datetime.date.today().isoformat(), 'device': jax.devices()[0].device_kind, 'jax': jax.__version__,
        'dtype': np.dtype(dtype).name, 'command': options.command_line, 'videos': len(videos), 'frames': plan.frames,
        'size': [small, large], 'seed': options.seed, 'settings': vars(settings), 'captions': prompts,
        'seconds': time.monotonic() - began,
    }} | results
    _write_json(options.out / 'results.json', results)
    print(f'results: {options.out / "results.json"}')
    return 0


def report(options):
    """Writes the page about the model."""
    from st2v_jax.evaluation.model_page import page

    return _write_page(page, options)


def refinement_report(options):
    """Writes the page about refinement."""
    from st2v_jax.evaluation.refinement_page import page

    return _write_page(page, options)


def _write_page(page, options):
    """Nothing but the JSON files is read."""
    read = lambda path: json.loads(path.read_text(encoding='utf-8'))
    pictures = os.path.relpath(options.results.parent, options.output.parent)
    text = page(read(options.results), [read(path) for path in options.training], Path(pictures).as_posix())
    options.output.write_text(text, encoding='utf-8')
    print(f'page: {options.output}')
    return 0


def _dtype(name):
    import jax
    import jax.numpy as jnp

    return jnp.dtype(name or ('float32' if jax.default_backend() == 'cpu' else 'bfloat16')).type


def _about(checker):
    return {name: value for name, value in checker[1].items() if name not in ('history', 'classes')}


def _write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + '\n', encoding='utf-8')


def _say(results):
    for place, found in results['places'].items():
        for kind, shares in found['right'].items():
            listed = ', '.join(f'{name} {100 * share:.0f} %' for name, share in shares.items())
            print(f'around {place}, {kind}: {listed}')
        moved = found['motion']
        print(f'around {place}: ' + ', '.join(
            f'{name} {moved["generated"][name]:.2f} (truth {moved["truth"][name]:.2f})' for name in moved['truth']))
    kinds = ('generated', 'truth', 'others')
    print('identity: ' + ', '.join(f'{kind} {results["identity"][kind]:.3f}' for kind in kinds))


def _fail(error, code):
    print(f'evaluate.py: {error}', file=sys.stderr)
    return code
