"""Batch n is a function of (seed, n); it depends neither on readers and processes nor on the first batch."""

import itertools

import jax
import numpy as np
import pytest

from st2v_jax.data.batches import batches

SIZE = 4


def example(number, random):
    return {'number': np.int64(number), 'noise': random.standard_normal(3)}


def first(count, n=10, **options):
    made = batches(list(range(n)), example, **{'batch_size': SIZE, 'seed': 0, **options})
    return list(itertools.islice(made, count))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)
    return True


def test_a_run_that_goes_on_gets_the_very_same_batches():
    whole = first(9)
    for start in (1, 4, 8):
        assert same(first(9 - start, start=start), whole[start:])


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_share_a_batch(processes):
    rows = np.split(np.arange(SIZE), processes)
    parts = [first(5, rows=mine) for mine in rows]
    joined = [jax.tree.map(lambda *leaves: np.concatenate(leaves), *step) for step in zip(*parts)]
    assert same(joined, first(5))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # about processes that start in a program with threads
@pytest.mark.parametrize('workers', [1, 3])
def test_readers_do_not_matter(workers):
    assert same(first(7, workers=workers), first(7))
    assert same(first(4, workers=workers, start=3), first(7)[3:])


def test_every_example_is_seen_once_a_round_in_a_new_order():
    numbers = np.concatenate([batch['number'] for batch in first(10)]).reshape(4, 10)
    assert (np.sort(numbers, axis=1) == np.arange(10)).all()
    assert len({tuple(order) for order in numbers}) == 4
    noise = np.concatenate([batch['noise'] for batch in first(10)])
    assert len(np.unique(noise)) == noise.size


def test_seeds_differ():
    assert any((a['number'] != b['number']).any() for a, b in zip(first(3), first(3, seed=1)))


def test_fewer_examples_than_a_batch_are_enough_and_none_are_refused():
    assert sorted(first(1, n=2)[0]['number']) == [0, 0, 1, 1]
    with pytest.raises(ValueError, match='there are no clips to train on'):
        first(1, n=0)
