"""`st2v train`: bad input, and all stages of the tiny model in sequence."""

import json
import os
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from configs_of import ABLATIONS, CONFIGS, STAGES, stage_config

from st2v_jax import errors, sharding
from st2v_jax.cli.run import main
from st2v_jax.models import build
from st2v_jax.open_model import open_model
from st2v_jax.weights import layout

ROOT = CONFIGS.parent


def fails(capsys, *argv):
    """The error line of a command that ends with exit code 2."""
    try:
        code = main(['train', *argv])
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == 2
    return capsys.readouterr().err.strip().split('\n')[-1]


CAM = f'{CONFIGS / "cam"}.py:tiny'


@pytest.mark.parametrize(
    'argv, message',
    [
        ((), 'the following arguments are required: --config'),
        (('--config', 'nowhere.py'), 'there is no config file nowhere.py'),
        (('--config', 'nowhere:tiny'), 'there is no config nowhere: give a file, or one of add_cond, apm, '),
        (('--config', CAM[:-4] + 'huge'), "a config has the sizes full, small, tiny, not 'huge'"),
        (('--config', CAM, '--config.stepz=3'), 'unknown config key stepz; there are'),
        (('--config', CAM, '--config.schedule.peek', '3'), 'key schedule.peek; there are decay, peak, warmup'),
        (('--config', CAM, '--config.steps.more=3'), 'unknown config key steps.more'),
        (('--config', CAM, '--config.model=3'), 'unknown config key model'),
        (('--config', CAM, '--config.steps=many'), "config key steps is of type int, not 'many'"),
        (('--config', CAM, '--config.steps'), '--config.steps needs a value'),
        (('--config', CAM, '--confug.steps=3'), 'unknown option --confug.steps=3'),
        (('--config', CAM, '--from', 'nowhere'), 'there is no folder of weights nowhere'),
        (('--config', CAM, '--config.objective=guessing'), 'objective is one of autoencoder, contrastive, denoising, '),
        (('--config', CAM, '--config.model.frames=[16]'), "config key model.frames is of type int, not '[16]'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = fails(capsys, *argv)
    assert line.startswith('error: ') and message in line


def test_overrides_keep_the_type_of_the_key():
    overrides = {
        'schedule.peak': '1',
        'memory': 'false',
        'trained': '1',
        'dtype': 'bfloat16',
        'model.backbone.channels': '(8, 16)',
        'model.backbone.attention': '(True, False)',
        'model.text.embed_dim': '8',
    }
    config = stage_config('cam', steps='7', **overrides)
    assert (config.steps, config.memory, config.trained, config.dtype) == (7, False, '1', 'bfloat16')
    assert isinstance(config.schedule.peak, float) and config.model.backbone.channels == (8, 16)


@pytest.mark.parametrize('size', ['', 'small', 'tiny'])
@pytest.mark.parametrize('stage', STAGES + ABLATIONS)
def test_every_config_is_a_model_and_fits_its_pool(stage, size):
    config = stage_config(stage, size)
    model = build.ModelConfig.from_dict(config.model.to_dict())
    assert config.data.scenes % config.batch_size == 0
    assert model.backbone.context_width == model.text.width
    assert model.apm is None or model.apm.image_width == model.image.embed_dim
    halvings = len(model.cam.conditioning_channels) - 1
    assert model.frame_size[0] // 2**halvings == model.latent_shape[1]
    # the docstring begins with what is trained and contains the command
    assert f'--config configs/{stage}.py:small' in (CONFIGS / f'{stage}.py').read_text()


@pytest.mark.parametrize('size', ['', 'small', 'tiny'])
@pytest.mark.parametrize('stage', ABLATIONS)
def test_an_ablation_differs_from_cam_in_its_model_and_what_it_trains_alone(stage, size):
    cam, ablation = (stage_config(name, size).to_dict() for name in ('cam', stage))
    differing = {name for name in cam if cam[name] != ablation[name]}
    assert differing == {'stage', 'model'} | ({'trained'} if stage == 'conc_cond' else set())


def test_full_configs_have_the_papers_settings():
    cam, apm = stage_config('cam', ''), stage_config('apm', '')
    assert (cam.batch_size, cam.schedule.peak, cam.steps) == (8, 5e-5, 400_000) and apm.steps == 1_000
    assert cam.optimizer.clip == 1.0 and cam.dropout.to_dict() == {'text': 0.05, 'anchor': 0.05, 'both': 0.05}
    assert re.fullmatch(cam.trained, 'cam/encoder/conv_in/kernel')
    assert not re.fullmatch(cam.trained, 'unet/encoder/conv_in/kernel')


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # from orbax and tensorboardX
def test_all_stages_in_sequence_make_a_video(capsys, tmp_path, monkeypatch, unoptimised):
    """The first stage and sample.py run in other processes; the other stages run here, which saves imports."""
    mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, 'make_mesh', lambda axes: mesh(axes, jax.devices()[:1]))
    flags = os.environ['XLA_FLAGS'].replace('--xla_force_host_platform_device_count=8', '').strip()

    def process(*command):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'XLA_FLAGS': flags}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def called(_, *command):
        assert main(['train', *command]) == 0
        return capsys.readouterr().out

    run, before = process, ()
    for stage in STAGES:
        workdir, config = tmp_path / stage, f'{CONFIGS / stage}.py:tiny'
        out = run('train.py', '--config', config, '--workdir', str(workdir), '--config.checkpoint_every=0', *before)
        run = called
        assert out.strip() == f'trained weights: {workdir / "weights"}'
        rows = [json.loads(row) for row in (workdir / 'metrics.jsonl').read_text().splitlines()]
        assert [row['step'] for row in rows] == [2, 4]
        before = ('--from', str(workdir / 'weights'))
    folder = tmp_path / 'refiner' / 'weights'
    opened = open_model(folder)
    config, params = opened.config, opened.params(opened.held)
    assert set(params) == {*layout.streaming(config), 'refiner', 'refiner_vae'}
    assert config.scale_factor != config.refiner.scale_factor != 0.18215 != config.scale_factor  # both were measured
    # a stage does not change the networks that it freezes
    first = open_model(tmp_path / 'autoencoder' / 'weights').params(['vae'])
    jax.tree.map(np.testing.assert_array_equal, first['vae'], params['vae'])
    video = tmp_path / 'out.mp4'
    process(
        'sample.py',
        '--weights',
        str(folder),
        '--prompt',
        'a red ball',
        '--num-frames',
        '20',
        '--steps',
        '2',
        '--output',
        str(video),
    )
    assert video.stat().st_size > 500


def test_a_stopped_run_says_how_to_resume(capsys, tmp_path, monkeypatch):
    from st2v_jax.training import loop

    def stopped(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        return 'stopped'

    monkeypatch.setattr(loop, 'train', stopped)
    argv = ['--config', CAM, '--workdir', str(tmp_path), '--config.steps=7']
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    monkeypatch.setattr(sys, 'orig_argv', ['python', 'train.py'])
    assert main(['train', *argv]) == 143
    again = f'python train.py {" ".join(argv)}'
    assert capsys.readouterr().err == f'stopped: checkpoints stay in {tmp_path}; again: {again}\n'


def test_a_run_that_another_process_stopped_is_not_done(capsys, tmp_path, monkeypatch):
    from st2v_jax.training import loop

    monkeypatch.setattr(loop, 'train', lambda *args, **kwargs: 'stopped')
    assert main(['train', '--config', CAM, '--workdir', str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith('error: another process of this run was stopped; checkpoints stay in ')


def test_a_loss_that_is_not_finite_is_one_line_and_exit_code_1(capsys, tmp_path, monkeypatch):
    from st2v_jax.training import loop

    def fail(*args, **kwargs):
        raise errors.TrainingError('step 3: loss nan')

    monkeypatch.setattr(loop, 'train', fail)
    assert main(['train', '--config', CAM, '--workdir', str(tmp_path)]) == 1
    assert capsys.readouterr().err.strip() == 'error: step 3: loss nan'


@pytest.mark.parametrize('address', ['s3://bucket/run', 'file:///runs/cam'])
@pytest.mark.parametrize('option', ['--workdir', '--from'])
def test_an_address_of_another_kind_is_refused(option, address, tmp_path, monkeypatch, capsys):
    """pathlib would make a folder named s3: here, and each host of a pod one of its own."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(['train', '--config', CAM, option, address])
    assert (
        f'{option}: must be a folder of this machine, or in a bucket gs://..., not {address}' in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())
