"""The comparison with PyTorch is of the same function; the speed on this machine is not tested."""

import json

import peer
import pytest


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.usefixtures('unoptimised')
@pytest.mark.filterwarnings('ignore')  # diffusers has many
def test_both_predict_the_same_and_a_page_is_written(tmp_path, monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.setattr(torch, 'compile', lambda module, **how: module)  # it takes minutes
    numbers, page = tmp_path / 'peer.json', tmp_path / 'page.md'
    words = ['--size', 'tiny', '--dtype', 'float32', '--runs', '1', '--blocks', '1', '--json', str(numbers)]
    assert peer.main(words) == 0
    found = json.loads(numbers.read_text())
    assert found['difference'] < 1e-5
    best = min(each['ms'] for each in found['theirs'].values())
    for form, ratio in found['ratio'].items():
        assert ratio == pytest.approx(best / found['ours'][form]['ms'])
    page.write_text(f'before\n{peer.BEGIN}\nold\n{peer.END}\nafter\n')
    assert peer.main(['--json', str(numbers), '--page', str(page)]) == 0
    text = page.read_text()
    assert 'here, branches share their beginning' in text and 'old' not in text and text.endswith('\nafter\n')
