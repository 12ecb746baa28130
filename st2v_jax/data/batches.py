"""Batches of clips, read by Grain: batch n is a function of (seed, n) alone.

It does not depend on how many threads or processes read, or on how many processes train: each takes its rows of the
same batch. A checkpoint therefore needs to store nothing about the data but the number of steps.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

AHEAD = 8  # batches read ahead of the step, one thread each; JPEG decoding releases Python's lock


def batches(
    source: Any,
    make: Callable[[Any, np.random.Generator], Any],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    rows: Sequence[int] | None = None,
    workers: int = 0,
) -> Iterator[Any]:
    """Endless iterator over the batches start, start + 1, ..., each a tree of arrays [rows, ...].

    Args:
      source: examples, as len(source) and source[i]; shuffled again in every epoch.
      make: (example, np.random.Generator) -> tree of arrays; the generator depends on the position in the stream.
      batch_size: rows of a whole batch.
      seed: decides the order and the generators.
      start: number of the first batch.
      rows: which rows of each batch are read; None reads all.
      workers: processes that read; 0 reads in threads of this process.
    """
    if not len(source):
        raise ValueError('there are no clips to train on')
    stream = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(make)
    rows = np.arange(batch_size) if rows is None else np.asarray(rows)
    chosen = grain.MapDataset.source(_Chosen(stream, batch_size, rows, start)).batch(len(rows))
    # Each reader makes whole batches, so that no batch depends on the number of readers.
    ahead = chosen.to_iter_dataset(grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD))
    if workers:
        _parse_flags()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(ahead)


class _Chosen:
    """Some rows of each batch of a stream, from batch `start` on."""

    def __init__(self, stream, batch_size, rows, start):
        self.stream, self.batch_size, self.rows, self.start = stream, batch_size, rows, start

    def __len__(self):
        return (len(self.stream) // self.batch_size - self.start) * len(self.rows)

    def __getitem__(self, i):
        number, row = divmod(i, len(self.rows))
        return self.stream[(self.start + number) * self.batch_size + int(self.rows[row])]


def _parse_flags():
    """Marks absl's flags as parsed: Grain's processes need that, and this program does not use absl."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
