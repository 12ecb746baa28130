"""The benchmark runs and counts; how fast it is here is nobody's promise."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'benchmarks' / 'denoise_step.py'


@pytest.fixture(scope='module')
def benchmark():
    spec = importlib.util.spec_from_file_location('denoise_step', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_numbers(benchmark, tmp_path, capsys):
    out = tmp_path / 'out.json'
    options = ['--size', 'tiny', '--dtype', 'float32', '--runs', '1', '--blocks', '1', '--matmul', '64']
    assert benchmark.main([*options, '--json', str(out)]) == 0
    printed = capsys.readouterr().out
    assert 'UNet + CAM + APM' in printed and 'UNet alone' in printed and '% of the matmul rate' in printed
    numbers = json.loads(out.read_text())
    for name in ('step', 'unet'):
        assert numbers[f'{name}_ms'] > 0 and 0 < numbers[f'{name}_tflop'] <= numbers['step_tflop']
        xla = numbers[f'{name}_tflop_xla']
        assert xla is None or numbers[f'{name}_tflop'] == pytest.approx(xla, rel=0.15)


def test_flops_of_known_programs(benchmark):
    a, b = jnp.zeros((3, 4)), jnp.zeros((4, 5))
    assert benchmark.flops(jnp.matmul, a, b) == 2 * 3 * 4 * 5
    scanned = lambda a: jax.lax.scan(lambda x, _: (x @ x, None), a, length=7)[0]
    assert benchmark.flops(jax.jit(scanned), jnp.zeros((2, 2))) == 7 * 16
    image, kernel = jnp.zeros((1, 8, 8, 3)), jnp.zeros((3, 3, 3, 6))
    layout = ('NHWC', 'HWIO', 'NHWC')
    convolve = lambda x, k: jax.lax.conv_general_dilated(x, k, (2, 2), 'SAME', dimension_numbers=layout)
    assert benchmark.flops(convolve, image, kernel) == 2 * 4 * 4 * 6 * 9 * 3


def test_no_runs_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(['--runs', '0'])
    assert stop.value.code == 2 and '1 or more' in capsys.readouterr().err
