"""Checkpoints of a training run, which resumes from the newest that is whole; none is replaced by an unfinished one."""

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from st2v_jax.storage.buckets import is_address, located


class Checkpoints:
    """The checkpoints of one run in `folder`, named by step.

    Orbax writes each under a temporary name and renames it when it is complete; in a bucket it writes a file
    commit_success.txt into it at the end.

    Args:
      folder: of all checkpoints.
      keep: how many are kept, the newest.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder = located(folder if is_address(folder) else Path(folder).absolute())
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        with _quiet():
            # With a handler orbax need not guess from the newest checkpoint, which may be damaged, how all are stored.
            handler = ocp.StandardCheckpointHandler()
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handler)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, progress: float) -> None:
        """Writes the state after `step` steps, and waits until it is on disk.

        Args:
          step: how many steps have been taken.
          state: a tree of arrays.
          progress: the fraction of the run that they are.

        Raises:
          OSError: if it cannot be written, as on a full disk; the checkpoint before it stays as it is.
        """
        before = self.latest()
        if step == before:
            return
        tree = {'progress': np.float64(progress), 'state': state}
        try:
            self._manager.save(step, args=ocp.args.StandardSave(tree), force=True)
            self._manager.wait_until_finished()
        except Exception as error:  # tensorstore's errors are its own
            remains = 'there is none before it' if before is None else f'the one of step {before} is complete'
            raise OSError(
                f'the checkpoint of step {step} cannot be written to {self.folder} ({_reason(error)}); '
                f'{remains}: make room and give the same command again'
            ) from error

    def restore(self, abstract: Any, say: Callable[[str], None] = warnings.warn) -> tuple[Any, float]:
        """The newest state that can be read, and its progress; `abstract` says how the state is placed.

        Checkpoints after it are damaged. They are kept as STEP.damaged, because the run will reach these steps again.

        Args:
          abstract: a state of jax.ShapeDtypeStruct with shardings, as from the function `abstract`.
          say: receives one line if checkpoints are damaged.

        Raises:
          ValueError: if no checkpoint can be read or they belong to another model; with several processes, which must
            agree, if the newest cannot be read.
        """
        _ignore_late_errors()
        steps = sorted(self._manager.all_steps(), reverse=True)
        target, errors = {'progress': np.float64(0), 'state': abstract}, {}
        for step in steps if jax.process_count() == 1 else steps[:1]:
            try:
                with _quiet():
                    tree = self._manager.restore(step, args=ocp.args.StandardRestore(target))
                break
            except Exception as error:  # for any fault in the files, the user needs to know in which and what to do
                errors[step] = error
        else:
            newest = f'checkpoint {self.folder / str(steps[0])} cannot be restored ({_reason(errors[steps[0]])})'
            if len(errors) < len(steps):
                raise ValueError(f'{newest}; delete it to go on from step {steps[1]}') from errors[steps[0]]
            before = ', nor can those before it; delete them' if len(steps) > 1 else '; delete it'
            raise ValueError(f'{newest}{before} to start again') from errors[steps[0]]
        for damaged, error in errors.items():
            kept = self._set_aside(damaged)
            say(f'checkpoint {damaged} is damaged ({_reason(error)}) and kept as {kept}; going on from step {step}')
        return tree['state'], float(tree['progress'])

    def _set_aside(self, step):
        """Renames a damaged checkpoint to a name that orbax does not read; returns its path."""
        kept, count = self.folder / f'{step}.damaged', 1
        while kept.exists():
            kept, count = self.folder / f'{step}.damaged-{count + 1}', count + 1
        (self.folder / str(step)).rename(kept)
        self._manager.reload()
        return kept

    def close(self) -> None:
        """Waits for orbax to finish."""
        self._manager.close()


def _reason(error):
    return str(error).strip().split('\n')[0][:120]


@functools.cache
def _ignore_late_errors():
    """Of several reads that fail, orbax waits for the first; Python would print the others, whenever they come."""
    report = sys.unraisablehook

    def hook(unraisable):
        if str(unraisable.exc_value) != 'Event loop is closed':
            report(unraisable)

    sys.unraisablehook = hook
    logging.getLogger('asyncio').addFilter(lambda record: 'exception was never retrieved' not in str(record.msg))


@contextlib.contextmanager
def _quiet():
    """Without what orbax logs about a damaged checkpoint, up to its whole metadata; the error says what is needed."""
    logger = logging.getLogger('absl')
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def abstract(state: Any, shardings: Any) -> Any:
    """What `restore` fills: a state (arrays or shapes) as shapes with these shardings."""
    place = lambda leaf, there: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there)
    return jax.tree.map(place, state, shardings)
