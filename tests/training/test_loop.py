"""The run around the steps, with the line of test_step.py in place of a video model."""

import json
import math
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs_of import stage_config

from st2v_jax import checkpoint, errors, sharding
from st2v_jax.data import pool
from st2v_jax.training import loop
from st2v_jax.training.objective import Objective

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')  # from orbax and tensorboardX


@pytest.fixture
def line(monkeypatch):
    """Replaces the objective of the stage clip by fitting a line; returns the result of the run, {'params': ...}."""
    ended = {'traces': 0}

    def objective(config, model, params, tokenizer, mesh, key):
        x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)

        def loss(params, batch):
            ended['traces'] += 1
            made = params['line']['kernel'] * batch['x'] + params['line']['bias']
            value = jnp.mean((made - batch['y']) ** 2)
            return jnp.where(jnp.abs(params['line']['bias']) > config.get('poison', 1e9), jnp.nan, value), {}

        def finish(params, model):
            ended['params'] = params
            return {}, model

        params = {'line': {'kernel': np.float32(0), 'bias': np.float32(0)}}
        points = pool.place({'x': x, 'y': 3 * x - 1}, mesh)
        return Objective(params, lambda path: True, points, lambda data, key: pool.draw(key, data), loss, loss, finish)

    monkeypatch.setitem(loop.OBJECTIVES, 'contrastive', objective)
    return ended


def config_of(**changes):
    config = stage_config('clip')
    with config.unlocked():
        config.update({'steps': 12, 'log_every': 4, 'checkpoint_every': 4, **changes})
    return config


def test_interrupted_and_resumed_equals_undisturbed(line, tmp_path, monkeypatch):
    assert loop.train(config_of(), tmp_path / 'whole') == 'finished'
    whole = line['params']

    steps_before_the_signal = iter(range(5))
    collect = loop.Logs.collect

    def interrupt(self, number, metrics):
        if next(steps_before_the_signal, None) is None:
            signal.raise_signal(signal.SIGTERM)
        collect(self, number, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Logs, 'collect', interrupt)
        assert loop.train(config_of(), tmp_path / 'parts') == 'stopped'
    assert checkpoint.Checkpoints(tmp_path / 'parts' / 'checkpoints').latest() == 6
    assert not (tmp_path / 'parts' / 'weights').exists()
    assert loop.train(config_of(), tmp_path / 'parts') == 'finished'
    jax.tree.map(np.testing.assert_array_equal, whole, line['params'])


def test_a_resumed_run_goes_on_from_what_it_began_with(line, tmp_path, monkeypatch):
    loop.train(config_of(steps=4), tmp_path)
    begin = loop.init.start
    monkeypatch.setattr(loop.init, 'start', lambda *args: begin(*args)._replace(origin='vae from elsewhere'))
    with pytest.raises(ValueError, match=r'started from fresh networks, but would now use vae from elsewhere'):
        loop.train(config_of(), tmp_path)


def test_the_step_is_compiled_once(line, tmp_path):
    loop.train(config_of(), tmp_path)
    assert line['traces'] == 1


def test_a_run_leaves_metrics_and_a_summary(line, tmp_path):
    loop.train(config_of(log_flops=True), tmp_path, command='python train.py ...')
    rows = [json.loads(row) for row in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [4, 8, 12]
    assert rows[-1]['loss'] < rows[0]['loss'] and rows[-1]['progress'] == 1
    # fitting a line needs no matrix products, but the rate of the device is known
    assert rows[-1]['flops'] == rows[-1]['share_of_matmul_rate'] == 0 <= rows[-1]['data_wait'] < 1
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['steps'] == 12 and summary['config']['stage'] == 'clip' and summary['command']
    assert (tmp_path / 'weights' / 'config.json').is_file()


def test_previews_are_written_at_the_steps_that_the_config_says(line, tmp_path, monkeypatch):
    written = []

    def write(settings, path, params, *_):
        written.append(path.name)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(loop.previews, 'write', write)
    loop.train(config_of(previews={'every': 6}, steps=12), tmp_path)
    assert written == ['step-0000006.mp4', 'step-0000012.mp4']


def test_not_a_number_names_the_step_and_leaves_the_last_checkpoint(line, tmp_path):
    with pytest.raises(errors.TrainingError, match=r'step \d+: loss nan.* not finite first after line. The last'):
        loop.train(config_of(poison=0.009, checkpoint_every=2), tmp_path)
    saved = checkpoint.Checkpoints(tmp_path / 'checkpoints')
    rows = [json.loads(row) for row in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert all(math.isfinite(row['loss']) for row in rows[:-1])
    assert saved.latest() is not None and saved.latest() < rows[-1]['step']


def test_time_ends_a_run_with_its_learning_rate_at_zero(line, tmp_path):
    config = config_of(max_seconds=4.0)
    with config.unlocked():
        config.update(steps=10**9, log_every=1, checkpoint_every=0)
    assert loop.train(config, tmp_path) == 'finished'
    last = json.loads((tmp_path / 'summary.json').read_text())
    assert last['last']['learning_rate'] < 0.02 * config.schedule.peak and last['seconds'] < 12


def emptied(folder):
    for file in folder.rglob('*'):
        if file.is_file():
            file.write_bytes(b'')


def test_after_a_damaged_checkpoint_a_run_goes_on_from_the_one_before(line, tmp_path, capfd):
    loop.train(config_of(), tmp_path)
    whole, newest = line['params'], tmp_path / 'checkpoints' / '12'
    emptied(newest)
    damaged = sorted(file.name for file in newest.rglob('*'))
    capfd.readouterr()
    assert loop.train(config_of(), tmp_path) == 'finished'
    err = capfd.readouterr().err
    assert err.count('is damaged') == 1 and '12.damaged; going on from step 8' in err
    assert 'absl' not in err and 'Traceback' not in err, 'nothing of what orbax logs'
    jax.tree.map(np.testing.assert_array_equal, whole, line['params'])
    assert sorted(file.name for file in newest.with_name('12.damaged').rglob('*')) == damaged
    assert checkpoint.Checkpoints(tmp_path / 'checkpoints').latest() == 12


def test_without_a_checkpoint_that_can_be_read_nothing_is_touched(line, tmp_path):
    loop.train(config_of(), tmp_path)
    for step in ('8', '12'):
        emptied(tmp_path / 'checkpoints' / step)
    with pytest.raises(
        ValueError, match=r'checkpoint .*12 cannot be restored .*, nor can those before it; delete them'
    ):
        loop.train(config_of(), tmp_path)
    assert {folder.name for folder in (tmp_path / 'checkpoints').iterdir()} == {'8', '12'}


@pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnraisableExceptionWarning'
)  # a failed write of orbax is reported late
def test_a_checkpoint_without_room_leaves_the_one_before(tmp_path):
    state = {'kernel': np.random.default_rng(0).standard_normal(1 << 16)}
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, state, 0.5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))  # no file may grow beyond it
    try:
        with pytest.raises(
            OSError, match=r'checkpoint of step 2 cannot be written to .*; the one of step 1 is complete'
        ):
            checkpoints.save(2, state, 0.9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = checkpoint.Checkpoints(tmp_path)
    assert again.latest() == 1
    restored, progress = again.restore(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state))
    assert progress == 0.5
    np.testing.assert_array_equal(restored['kernel'], state['kernel'])
    again.save(2, state, 0.9)
    assert again.latest() == 2


def test_a_mesh_must_fit_the_devices():
    with pytest.raises(ValueError, match="mesh {'data': 3} does not divide 8 devices"):
        sharding.make_mesh({'data': 3})
    with pytest.raises(ValueError, match='a batch of 12 cannot be split over 8 devices'):
        sharding.check_rows(12, sharding.make_mesh({'data': -1}))


def test_a_parameter_without_a_rule_is_named():
    mesh = sharding.make_mesh({'data': -1})
    with pytest.raises(ValueError, match='no sharding rule for unet/odd'):
        sharding.shardings({'unet': {'odd': jnp.zeros(3)}}, mesh, rules=((r'kernel', sharding.WHOLE),))
