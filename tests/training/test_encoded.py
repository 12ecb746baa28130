"""Clips with latents and text embeddings train like others, and only with the networks that made these."""

import dataclasses
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from configs_of import CONFIGS, stage_config
from data.videos import write_folder

from st2v_jax import sharding
from st2v_jax.cli.run import main
from st2v_jax.data import caption_tokens
from st2v_jax.data.clips import INDEX
from st2v_jax.models import build
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training import clips, loop
from st2v_jax.weights.folder import save

# Only one level, which compiles in half the time
LEVEL = {'model.backbone.channels': '(8,)', 'model.backbone.attention': '(True,)'}
MODEL = build.ModelConfig.from_dict(stage_config('apm', **LEVEL).model.to_dict())
TOKENIZER = caption_tokens.tokenizer_for(MODEL.text.vocab_size)
jitted = partial(jax.jit, compiler_options=stage_config('apm').compiler_options.to_dict())
OPTIONS = ('--frames', '32', '--fps', '12', '--videos-per-shard', '2', '--workers', '1', '--quiet')
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def params():
    """Random weights of all networks, also where training starts at zero, so that every part has an effect."""
    doors = {'vae': build.vae, 'text': build.text_tower, 'image': build.image_tower}
    made = {name: build.init(jax.random.key(1), door(MODEL)) for name, door in doors.items()}
    made |= {name: build.init(jax.random.key(2), build.denoiser(MODEL))[name] for name in ('unet', 'cam')}
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (leaf + 0.1 * random.standard_normal(leaf.shape)).astype(np.float16), made)


@pytest.fixture(scope='module')
def made(params, tmp_path_factory):
    """A folder with videos/ and weights/, and with clips of 32 frames made from them, in clips/ and encoded/."""
    folder = tmp_path_factory.mktemp('encoded')
    write_folder(folder / 'videos')
    save(folder / 'weights', MODEL, params, tokenizer=TOKENIZER)
    for output, encode in (('clips', ()), ('encoded', ('--encode', folder / 'weights'))):
        assert main(command(folder, folder / output, '--size', 16, *encode)) == 0
    return folder


def command(folder, output, *more):
    return [str(word) for word in ('prepare-data', '--videos', folder / 'videos', '--output', output, *OPTIONS, *more)]


def objective(stage, folder, params, **overrides):
    config = stage_config(stage, **LEVEL, **{'data.source': str(folder)}, **overrides)
    mesh = sharding.make_mesh({'data': -1}, jax.devices()[:1])
    return loop.OBJECTIVES[config.objective](config, MODEL, params, TOKENIZER, mesh, jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    'stage, noise, idle',
    [
        ('cam', '0.0', {'vae', 'text'}),
        pytest.param('video_ldm', '0.0', {'vae'}, marks=pytest.mark.slow),  # at this size it trains the text tower
        pytest.param('apm', '0.5', {'text'}, marks=pytest.mark.slow),  # noisy latents are decoded
    ],
)
def test_encoded_clips_have_the_loss_of_others(made, params, stage, noise, idle):
    """Up to float16. The networks that made the latents and embeddings are not copied to the devices."""
    losses = []
    for folder in ('clips', 'encoded'):
        run = objective(stage, made / folder, params, conditioning_noise=noise, **{'dropout.text': '0.4'})
        loss = jitted(lambda params, data, run=run: run.direct(params, run.draw(data, jax.random.key(3)))[0])
        data = next(run.data_from(5))
        losses.append(float(loss(run.params, data)))
        assert {'vae', 'text'} - set(run.params) == (idle if folder == 'encoded' else set())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    if 'text' in idle:  # the caption has an effect
        silent = data._replace(videos=data.videos._replace(text=0 * data.videos.text))
        assert abs(float(loss(run.params, silent)) - losses[1]) > 10 * abs(losses[0] - losses[1])


def test_conditioning_frames_are_decoded_from_latents_as_noisy_as_said(made, params):
    noise, seen = 0.5, []
    for folder in ('clips', 'encoded'):
        run = objective('cam', made / folder, params, conditioning_noise=str(noise))
        batch, *_ = jitted(run.draw)(next(run.data_from(0)), jax.random.key(3))
        encode = jitted(lambda params, batch: clips.encode(batch, params, MODEL, np.float32))
        seen.append(encode(run.params, batch))
    levels = np.std(batch.noise, axis=(2, 3, 4))
    assert levels.shape == (8, MODEL.memory) and levels.max() < 1.1 * noise and np.ptp(levels[:, 0]) > noise / 4
    assert (np.ptp(levels, axis=1) < 0.3 * levels.mean(1)).all()  # similar in all frames of a clip
    assert seen[0].frames.shape == (8, MODEL.memory, 16, 16, 3)
    np.testing.assert_allclose(seen[0].frames, seen[1].frames, atol=0.02)
    latents = (seen[0].latents[:, : MODEL.memory] + batch.noise) / MODEL.scale_factor
    decoded = jitted(partial(build.vae(MODEL), method='decode'))(params['vae'], latents[2])
    np.testing.assert_allclose(seen[0].frames[2], np.clip(decoded, -1, 1), atol=1e-4)
    run = objective('cam', made / 'clips', params)  # without noise there is none
    assert jax.eval_shape(run.draw, next(run.data_from(0)), jax.random.key(3))[0].noise is None


def test_clips_of_other_networks_are_refused(made, params, capsys, tmp_path):
    feed = partial(clips.feed, stage_config('cam', **{'data.source': str(made / 'encoded')}))
    mesh = sharding.make_mesh({'data': -1})
    _, spared = feed(MODEL, params, TOKENIZER, mesh, {'vae', 'text'})
    assert spared == {'vae', 'text'}
    other = jax.tree.map(lambda leaf: leaf * 1.01, params)
    scaled = dataclasses.replace(MODEL, scale_factor=1.0)
    words = Tokenizer(TOKENIZER.rows, TOKENIZER.words, pad=0)
    for network, changed in (
        ('autoencoder', (MODEL, params | {'vae': other['vae']}, TOKENIZER)),
        ('autoencoder', (scaled, params, TOKENIZER)),
        ('text tower', (MODEL, params | {'text': other['text']}, TOKENIZER)),
        ('text tower', (MODEL, params, words)),
        ('autoencoder and text tower', (MODEL, other, TOKENIZER)),
    ):
        with pytest.raises(
            ValueError, match=f'encoded with another {network} than this run starts from: prepare them again'
        ):
            feed(*changed, mesh, {'vae', 'text'})
    feed(MODEL, params | {'text': other['text']}, TOKENIZER, mesh, {'vae'})  # a text tower that is trained may differ
    with pytest.raises(ValueError, match='those of the clips are for 16x16 pixels, the model has 32x32'):
        feed(dataclasses.replace(MODEL, frame_size=(32, 32)), params, TOKENIZER, mesh, {'vae', 'text'})

    save(tmp_path / 'other', MODEL, other, tokenizer=TOKENIZER)
    code = main(
        [
            'train',
            '--config',
            f'{CONFIGS / "cam"}.py:tiny',
            '--from',
            str(tmp_path / 'other'),
            '--workdir',
            str(tmp_path / 'run'),
            f'--config.data.source={made / "encoded"}',
            *(f'--config.{key}={value}' for key, value in LEVEL.items()),
        ]
    )
    assert code == 2 and capsys.readouterr().err.strip().split('\n')[-1] == (
        'error: the clips were encoded with another autoencoder and text tower than this run starts from: '
        'prepare them again, with the weights of --from as --encode'
    )


def test_killed_while_encoding_and_continued_equals_undisturbed(made, capsys):
    output = made / 'killed'
    program = (
        'import sys, time; from st2v_jax.cli.run import main\n'
        'from st2v_jax.data import clips, encoding\n'
        'whole = encoding.Encoder.__call__\n'
        'def encode(self, record):\n'
        '    if clips.Clip(record).file == "long.mp4": print("here", flush=True); time.sleep(60)\n'
        '    return whole(self, record)\n'
        'encoding.Encoder.__call__ = encode\n'
        'main(sys.argv[1:])'
    )
    arguments = command(made, output, '--size', 16, '--encode', made / 'weights')
    run = subprocess.Popen([sys.executable, '-c', program, *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    assert run.stdout.readline() == b'here\n'
    run.send_signal(signal.SIGKILL)
    run.communicate()
    first = output / '00000.array_record'
    time_of_first = first.stat().st_mtime_ns
    assert not (output / INDEX).exists()
    assert main(command(made, output, '--size', 16)) == 2
    assert 'was begun with encoded={' in capsys.readouterr().err
    assert main(arguments) == 0
    assert first.stat().st_mtime_ns == time_of_first
    names = sorted(file.name for file in (made / 'encoded').iterdir())
    assert names == sorted(file.name for file in output.iterdir())
    assert all((made / 'encoded' / name).read_bytes() == (output / name).read_bytes() for name in names)


def test_encoding_needs_the_size_of_the_model(made, capsys, tmp_path):
    for more, message in (
        (
            ('--size', '24', '--encode', made / 'weights'),
            f'error: with --encode {made / "weights"}, --size must be that of the model, 16x16, not 24x24',
        ),
        (('--encode', 'nowhere'), 'error: there is no folder of weights nowhere'),
    ):
        assert main(command(made, tmp_path / 'clips', *more)) == 2
        assert capsys.readouterr().err.strip() == message
        assert not (tmp_path / 'clips').exists()
