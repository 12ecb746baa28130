"""The benchmarks of the Refiner run and count operations; the speed on this machine is not tested."""

import json

import jax
import pytest
import refine_scaling
import refine_step

pytestmark = pytest.mark.usefixtures('unoptimised')
TINY = ('--size', 'tiny', '--dtype', 'float32', '--runs', '1', '--blocks', '1')


@pytest.mark.slow
def test_it_prints_numbers_and_projects_a_video(tmp_path, capsys):
    out = tmp_path / 'out.json'
    assert refine_step.main([*TINY, '--matmul', '64', '--frames', '30', '--json', str(out)]) == 0
    printed = capsys.readouterr().out
    assert (
        'per forward pass' in printed
        and 'per guided step' in printed
        and '30 frames of 32x16: 7 chunks, 4 steps' in printed
    )
    numbers = json.loads(out.read_text())
    # two guidance branches, which share what comes before the first cross-attention
    assert numbers['forward_tflop'] < numbers['step_tflop'] < 2 * numbers['forward_tflop']
    assert numbers['video_refined_s'] == pytest.approx(7 * 4 * numbers['step_ms'] / 1e3)
    assert numbers['video_s'] > numbers['video_refined_s'] and numbers['encode_ms'] > 0 and numbers['decode_ms'] > 0


@pytest.mark.slow
def test_chunks_are_spread_over_devices(tmp_path, capsys):
    out = tmp_path / 'out.json'
    assert refine_scaling.main([*TINY, '--devices', '2', '--json', str(out)]) == 0
    assert 'times as fast as one' in capsys.readouterr().out
    assert json.loads(out.read_text())['ratio'] > 0


@pytest.mark.parametrize('devices', [3, 2 * len(jax.devices())])
def test_devices_that_are_not_there_are_refused(devices, capsys):
    with pytest.raises(SystemExit) as stop:
        refine_scaling.main(['--devices', str(devices)])
    assert stop.value.code == 2 and f'and at most {len(jax.devices())}, not {devices}' in capsys.readouterr().err
