"""Batches of clips, read by Grain: batch n is a function of (seed, n) alone.

It does not depend on how many threads or processes read, nor on how many processes train: each takes its rows of the
same batch. So the number of steps done is all that a checkpoint needs to know of the data.
"""

import grain
import numpy as np

AHEAD = 8  # batches that are read ahead of the step, a thread for each; JPEG decoding lets go of Python's lock


def batches(source, make, *, batch_size, seed, start=0, rows=None, workers=0):
    """Iterator over the batches start, start + 1, ...: trees of arrays [rows, ...], without end.

    source: len(source) examples source[i], shuffled anew in every round.
    make: (example, np.random.Generator) -> tree of arrays; the generator is that of the place in the stream.
    rows: the numbers of the rows wanted of each batch (default: all).
    workers: processes that read; 0 reads in threads of this one.
    """
    if not len(source):
        raise ValueError('there are no clips to train on')
    stream = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(make)
    rows = np.arange(batch_size) if rows is None else np.asarray(rows)
    chosen = grain.MapDataset.source(_Chosen(stream, batch_size, rows, start)).batch(len(rows))
    # Whole batches go to the readers, so that no batch depends on how many there are.
    ahead = chosen.to_iter_dataset(grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD))
    if workers:
        _parse_flags()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(ahead)


class _Chosen:
    """Of a stream cut into batches, from batch `start` on, only some rows of each."""

    def __init__(self, stream, batch_size, rows, start):
        self.stream, self.batch_size, self.rows, self.start = stream, batch_size, rows, start

    def __len__(self):
        return (len(self.stream) // self.batch_size - self.start) * len(self.rows)

    def __getitem__(self, i):
        number, row = divmod(i, len(self.rows))
        return self.stream[(self.start + number) * self.batch_size + int(self.rows[row])]


def _parse_flags():
    """Grain's processes want absl's flags parsed, which a program without absl never does."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
