"""Results are lines that a kill cannot damage but the last, tables with known means, and comparisons of pairs."""

import csv
import json

import pytest

from st2v_jax.errors import BadInput
from st2v_jax.evaluation import results, tables
from st2v_jax.evaluation.intervals import estimate, paired


def record(file, value, prompt=None, frames=2):
    measured = {'mawe': {'settings': {'size': [720, 720]}, 'versions': {}, 'numbers': {'mawe': value}, 'curves': {}}}
    return {'file': file, 'bytes': 1, 'modified': 1, 'prompt': prompt, 'frames': frames, 'measured': measured}


def test_the_newest_line_of_a_file_counts(tmp_path):
    for each in (record('a', 1.0), record('b', 2.0), record('a', 3.0)):
        results.append(results.file_of(tmp_path), each)
    found, damaged = results.read(tmp_path)
    assert {name: results.numbers(each) for name, each in found.items()} == {'a': {'mawe': 3.0}, 'b': {'mawe': 2.0}}
    assert damaged == 0


@pytest.mark.parametrize('cut', [1, 20, 60])
def test_a_line_that_was_cut_costs_its_video_only(cut, tmp_path):
    path = results.file_of(tmp_path)
    results.append(path, record('a', 1.0))
    whole = path.read_bytes()
    results.append(path, record('b', 2.0))
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    assert set(results.read(tmp_path)[0]) == {'a'} and results.read(tmp_path)[1] == 1
    results.append(path, record('c', 3.0))
    assert set(results.read(tmp_path)[0]) == {'a', 'c'}
    results.join(tmp_path)
    assert set(results.read(tmp_path)[0]) == {'a', 'c'} and results.read(tmp_path)[1] == 0


@pytest.mark.parametrize('text', ['{"file": "a.mp4", "caption": "mine"}\n', 'one\ntwo\n', '{"file": "a", "bytes": 1}'])
def test_a_file_of_somebody_else_is_refused_and_kept(text, tmp_path):
    results.file_of(tmp_path).write_text(text)
    with pytest.raises(BadInput, match=r'videos.jsonl is not what st2v evaluate --videos writes'):
        results.join(tmp_path)
    assert results.file_of(tmp_path).read_text() == text


def test_shards_are_joined_and_others_files_stay(tmp_path):
    results.append(results.file_of(tmp_path), record('a', 1.0))
    results.append(results.file_of(tmp_path, (1, 2)), record('a', 4.0))
    results.append(results.file_of(tmp_path, (2, 2)), record('b', 2.0))
    other = tmp_path / 'videos-x-of-y.jsonl'
    other.write_text('mine')
    assert [results.numbers(each)['mawe'] for each in results.join(tmp_path).values()] == [4.0, 2.0]
    assert {path.name for path in tmp_path.iterdir()} == {'videos.jsonl', other.name}


def test_a_shard_that_is_being_written_stays(tmp_path):
    shard = results.file_of(tmp_path, (1, 2))
    results.append(shard, record('b', 2.0))
    with results.locked(shard):
        assert set(results.join(tmp_path)) == {'b'}
        assert shard.exists()
    results.join(tmp_path)
    assert not shard.exists()


def test_a_constant_difference_has_an_interval_of_no_width():
    found = paired([1.0, 5.0, 2.0, None], [1.5, 5.5, 2.5, 9.0])
    assert found == (0.5, 0.5, 0.5, 3)


def test_an_interval_holds_the_mean_and_repeats():
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    one = estimate(values)
    assert one == estimate(values) and one.low < one.mean == 6.2 < one.high
    assert min(values) <= one.low and one.high <= max(values)
    assert estimate([3.0]) == (3.0, 3.0, 3.0, 1) and estimate([None]).count == 0


def test_the_interval_of_coin_flips_is_that_of_the_binomial():
    found = estimate([0.0, 1.0] * 200)  # 1.96 standard errors are 0.049
    assert found.low == pytest.approx(0.451, abs=0.004) and found.high == pytest.approx(0.549, abs=0.004)


def test_tables_have_means_over_the_videos_that_have_a_number(tmp_path):
    tables.write(tmp_path, [record('a|b.mp4', 1.0, 'a ball'), record('c.mp4', 3.0), record('still.mp4', None)])
    text = (tmp_path / 'table.md').read_text()
    assert '| mawe | 2 | 1 to 3 | 2 |' in text and 'a\\|b.mp4' in text and 'size 720x720' in text
    rows = list(csv.DictReader((tmp_path / 'table.csv').read_text().splitlines()))
    assert [row['mawe'] for row in rows] == ['1.0', '3.0', ''] and rows[0]['file'] == 'a|b.mp4'


def test_videos_are_paired_by_name_and_else_by_prompt():
    first = [record('1.mp4', 0.0, 'a'), record('2.mp4', 0.0, 'b'), record('3.mp4', 0.0), record('4.mp4', 0.0, 'd')]
    second = [
        record('2.webm', 0.0, 'a'),
        record('1.webm', 0.0, 'b'),
        record('3.gif', 0.0, 'c'),
        record('9.mp4', 0.0, 'x'),
    ]
    names = [(one['file'], other['file']) for one, other in tables.matched(first, second)]
    assert sorted(names) == [('1.mp4', '2.webm'), ('2.mp4', '1.webm'), ('3.mp4', '3.gif')]


def test_methods_side_by_side_differ_by_what_was_added(tmp_path):
    values = [1.0, 4.0, 2.0]
    methods = {
        'ours': [record(f'{n}.mp4', value) for n, value in enumerate(values)],
        'theirs': [record(f'{n}.mp4', value + 2) for n, value in enumerate(values)] + [record('more.mp4', 100.0)],
    }
    tables.compare(tmp_path, methods)
    text = (tmp_path / 'comparison.md').read_text()
    assert '| 2 | 2 to 2 | 3 |' in text and '| 1.mp4 | 4 | 6 |' in text
    rows = list(csv.reader((tmp_path / 'comparison.csv').read_text().splitlines()))
    assert rows[2][:3] == ['mawe', 'theirs', str((9 + 4 + 100) / 4)] and rows[2][6:] == ['2.0', '2.0', '2.0', '3']


def test_a_comparison_tells_of_metrics_that_looked_in_different_ways(tmp_path):
    mine, theirs = record('1.mp4', 1.0), record('1.mp4', 2.0)
    assert tables.measured_differently({'a': [mine], 'b': [theirs]}) == []
    for change in ({'size': [256, 256]}, {'size': [720, 720], 'flow': 'RAFT-Large'}):
        theirs['measured']['mawe']['settings'] = change
        assert tables.measured_differently({'a': [mine], 'b': [theirs]}) == ['mawe']
        assert tables.measured_differently({'a': [mine, theirs], 'b': [mine]}) == ['mawe']
        tables.compare(tmp_path, {'a': [mine], 'b': [theirs]})
        assert 'numbers do not compare: mawe.' in (tmp_path / 'comparison.md').read_text()
    theirs['measured']['mawe']['settings'] = mine['measured']['mawe']['settings'] | {'prompt': 'a', 'chunks': [16, 8]}
    assert tables.measured_differently({'a': [mine], 'b': [theirs]}) == []


def test_lines_are_json_without_infinity(tmp_path):
    with pytest.raises(ValueError, match='JSON compliant'):
        results.append(results.file_of(tmp_path), record('a', float('inf')))
    results.append(results.file_of(tmp_path), record('a', None, 'ein Ball, größer'))
    assert json.loads(results.file_of(tmp_path).read_text())['prompt'] == 'ein Ball, größer'
