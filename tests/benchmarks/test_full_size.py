"""The benchmark of published files does what a user does and writes its page; the speed here is not tested."""

import json

import full_size
import pytest

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.mark.slow
def test_from_published_files_to_the_page(tmp_path, capsys):
    out, page = tmp_path / 'out.json', tmp_path / 'page.md'
    options = ['--size', 'tiny', '--frames', '20', '--steps', '3', '--folder', str(tmp_path), '--json', str(out)]
    assert full_size.main(options) == 0
    assert 'loaded in' in capsys.readouterr().out
    found = json.loads(out.read_text())
    stages = {stage['name']: stage for stage in found['stages']}
    assert stages['first chunk, step']['times'] == stages['later chunk, step']['times'] == 3
    assert all(stage['measured_ms'] > 0 and stage['planned_ms'] > 0 for stage in stages.values())
    assert found['measured_s'] == pytest.approx(sum(s['times'] * s['measured_ms'] for s in stages.values()) / 1e3)
    assert found['loading_s'] > 0 and found['converted_gb'] > 0 and not list(tmp_path.glob('tmp*'))

    page.write_text(f'before\n{full_size.BEGIN}\nold\n{full_size.END}\nafter\n')
    assert full_size.main(['--json', str(out), '--page', str(page)]) == 0
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('\nafter\n') and 'old' not in text
    assert '| later chunk, decoding | 1 |' in text
