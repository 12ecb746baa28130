"""The benchmark runs and counts operations; the speed on this machine is not tested."""

import json

import denoise_step
import pytest

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_it_prints_numbers(tmp_path, capsys):
    out = tmp_path / 'out.json'
    options = ['--size', 'tiny', '--dtype', 'float32', '--runs', '1', '--blocks', '1', '--matmul', '64']
    assert denoise_step.main([*options, '--json', str(out)]) == 0
    printed = capsys.readouterr().out
    assert 'UNet + CAM + APM' in printed and 'UNet alone' in printed and '% of the matmul rate' in printed
    numbers = json.loads(out.read_text())
    for name in ('step', 'unet'):
        assert numbers[f'{name}_ms'] > 0 and 0 < numbers[f'{name}_tflop'] <= numbers['step_tflop']
        xla = numbers[f'{name}_tflop_xla']
        assert xla is None or numbers[f'{name}_tflop'] == pytest.approx(xla, rel=0.15)


def test_no_runs_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        denoise_step.main(['--runs', '0'])
    assert stop.value.code == 2 and 'must be at least 1' in capsys.readouterr().err
