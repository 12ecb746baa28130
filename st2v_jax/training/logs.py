"""The reports of a run: a progress bar, metrics.jsonl, and TensorBoard if it is installed."""

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from st2v_jax.storage.atomic import append_line, write_bytes
from st2v_jax.storage.buckets import is_address
from st2v_jax.training.processes import is_first

SENDING = 120  # seconds between two copies of TensorBoard's files to a bucket


class Logs:
    """Collects metrics and reports them. Of several processes, only the first one reports.

    Metrics stay on the devices until `write`, because fetching them waits for the step that makes them.

    Attributes:
      workdir: where metrics.jsonl and the files of TensorBoard are.
      last: the metrics that were written last.
      work: (operations that a step needs, matmul rate of all devices in operations per second), or None if unknown.
    """

    def __init__(self, workdir: Path, config: ConfigDict):
        self.workdir, self.last = workdir, {}
        self._pending, self._since, self._waited = [], time.monotonic(), 0.0
        self.work = None
        self._quiet = not is_first()
        self._bar = tqdm(
            total=config.steps,
            desc=config.stage,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=1.0,
            disable=self._quiet,
        )
        self._board = self._events = None
        if self._quiet:
            return
        if importlib.util.find_spec('tensorboardX'):
            from tensorboardX import SummaryWriter

            if is_address(workdir):  # tensorboardX's own uploads are conditional, and fail if repeated
                self._events, self._sent = tempfile.TemporaryDirectory(), self._since
            self._board = SummaryWriter(str(self._events.name if self._events else workdir / 'tensorboard'))
        else:
            self.say("TensorBoard is not installed (pip install 'st2v_jax[train]'); metrics.jsonl is written anyway")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        if self._board:
            self._board.close()
        if self._events:
            self._send_events()
            self._events.cleanup()

    def say(self, line: str) -> None:
        """Prints one line above the bar."""
        if not self._quiet:
            self._bar.write(line, file=sys.stderr)

    def waited(self, seconds: float) -> None:
        """Adds the time that the loop has waited for the data of a step."""
        self._waited += seconds

    def collect(self, number: int, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of step `number`, scalars on a device."""
        self._pending.append((number, metrics))

    def show(self, number: int, picture: np.ndarray) -> None:
        """Writes a picture uint8 [H, W, 3] of step `number` to TensorBoard."""
        if self._board:
            self._board.add_image('previews', picture, number, dataformats='HWC')

    def write(self, progress: float) -> list[tuple[int, dict[str, float]]]:
        """Writes the mean of the metrics collected since the last call; returns them all as [(step, metrics)]."""
        if not self._pending:
            return []
        rows = [
            (number, {name: float(value) for name, value in metrics.items()})
            for number, metrics in jax.device_get(self._pending)
        ]
        now = time.monotonic()
        number, count = rows[-1][0], len(rows)
        means = {name: float(np.mean([metrics[name] for _, metrics in rows])) for name in rows[0][1]}
        seconds = (now - self._since) / count
        self.last = {
            'step': number,
            **means,
            'step_seconds': seconds,
            'progress': progress,
            'data_wait': self._waited / (now - self._since),
        }
        if self.work is not None:
            needed, rate = self.work
            self.last |= {'flops': needed / seconds, 'share_of_matmul_rate': needed / seconds / rate}
        self._pending, self._since, self._waited = [], now, 0.0
        if self._quiet:
            return rows
        append_line(self.workdir / 'metrics.jsonl', json.dumps(self.last))
        if self._board:
            for name, value in self.last.items():
                self._board.add_scalar(name, value, number)
        if self._events and now - self._sent > SENDING:
            self._board.flush()
            self._send_events()
            self._sent = now
        self._bar.set_postfix(loss=f'{means["loss"]:.4f}', done=f'{100 * progress:.0f}%', refresh=False)
        self._bar.update(number - self._bar.n)
        return rows

    def _send_events(self):
        for file in Path(self._events.name).iterdir():
            write_bytes(self.workdir / 'tensorboard' / file.name, file.read_bytes())
