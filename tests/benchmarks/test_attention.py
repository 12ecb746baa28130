"""The benchmark of attention runs in both ways; the speed on this machine is not tested."""

import json

import attention
import pytest

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_it_measures_the_refiner_with_and_without_a_kernel(tmp_path, capsys):
    out = tmp_path / 'out.json'
    options = ('--size', 'tiny', '--dtype', 'float32', '--runs', '1', '--blocks', '1', '--matmul', '64')
    assert attention.main([*options, '--json', str(out)]) == 0
    assert 'with blocks it takes' in capsys.readouterr().out
    numbers = json.loads(out.read_text())
    assert numbers['forward']['own']['tflop'] == numbers['forward']['blocks']['tflop'] > 0
    assert numbers['ratio'] > 0 and numbers['alone']['blocks of 2^10']['kernel'] == 'blocked'
