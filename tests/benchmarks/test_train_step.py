"""The benchmark of the training step runs, counts operations and writes its page; the speed here is not tested."""

import json

import pytest
import train_step

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.fixture(scope='module')
def rows():
    return {row['mesh']: row for row in train_step.per_device('cam')}


@pytest.mark.slow
def test_it_measures_one_device_and_two_and_writes_the_page(tmp_path, capsys):
    out, page = tmp_path / 'out.json', tmp_path / 'page.md'
    tiny = ['--size', 'tiny', '--dtype', 'float32', '--runs', '1', '--blocks', '1', '--matmul', '64']
    options = [*tiny, '--stage', 'video_ldm', '--try', 'none:1', '--devices', '2', '--json', str(out)]
    assert train_step.main(options) == 0
    assert '2 devices train' in capsys.readouterr().out
    found = json.loads(out.read_text())
    one, two = found['tries']
    assert two['needed_tflop'] == 2 * one['needed_tflop'] > 0
    assert one['share'] == pytest.approx(one['needed_tflop'] / one['ms'] * 1e3 / found['matmul_tflops'])
    assert found['ratios'][0]['ratio'] == pytest.approx(2 * one['ms'] / two['ms'])
    assert one['state_gib'] == pytest.approx(two['state_gib'], rel=0.01)

    found['tries'].append({'remat': 'none', 'batch': 64, 'devices': 1, 'fits': False})
    out.write_text(json.dumps(found))
    page.write_text(f'before\n{train_step.BEGIN}\nold\n{train_step.END}\nafter\n')
    for _ in range(2):  # the second time changes nothing
        assert train_step.main(['--json', str(out), '--page', str(page)]) == 0
        text = page.read_text()
        assert text.startswith('before\n') and text.endswith('\nafter\n') and 'old' not in text
        assert '| `none` | 64 | 1 | does not fit |' in text and '| 256 | 4 x 64 x 1 |' in text


def test_what_lies_on_a_device_follows_from_the_mesh(rows):
    one, many = rows[1, 1, 1], rows[8, 1, 1]
    names = ('parameters', 'optimizer', 'frozen')
    assert all(one[name] == many[name] for name in names)  # the axis data does not split parameters
    for name in names:
        share = rows[1, 8, 1][name] / one[name]
        assert 1 / 8 <= share < 1.02 / 8  # vectors are not split
    # 691 M trained parameters and their average, two moments of each; 1.4 G + 0.3 G frozen ones in 16 bits
    assert one['parameters'] == 2 * 4 * 690_848_864
    assert one['optimizer'] == pytest.approx(one['parameters'], rel=1e-6)
    assert one['frozen'] == pytest.approx(2 * (1_411_233_860 + 340_387_840), rel=0.01)


def test_a_page_without_the_mark_is_refused(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('nothing\n')
    with pytest.raises(SystemExit, match='has no line'):
        train_step.main(['--json', 'none.json', '--page', str(page)])
