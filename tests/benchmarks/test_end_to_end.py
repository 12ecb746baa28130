"""The benchmark of what a user waits for runs and stores its numbers; the speed on this machine is not tested."""

import json

import end_to_end
import pytest

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_it_stores_rates_and_what_the_first_frame_waits_for(tmp_path, monkeypatch):
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'cache'))
    out = tmp_path / 'out.json'
    assert end_to_end.main(['--size', 'tiny', '--folder', str(tmp_path), '--chunks', '2', '--json', str(out)]) == 0
    numbers = json.loads(out.read_text())
    assert list(numbers['streaming']) == ['ddim, 4 steps', 'dpmpp_2m, 2 steps']
    assert all(found['frames_per_s'] > 0 for found in numbers['streaming'].values())
    first = numbers['first_frame']
    order = ['imported', 'device', 'loaded', 'first step', 'last step', 'first frame']
    assert sorted(order, key=first.get) == order and first['reading_s'] > 0
    assert numbers['refinement']['frames_per_s'] > 0
