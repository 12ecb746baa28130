"""Checkpoints of a training run. A run resumes from the newest; an unfinished one never replaces a good one."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run in `folder`, named by step.

    Orbax writes each under a temporary name and renames it when it is complete.

    Args:
      folder: of all checkpoints.
      keep: how many are kept, the newest.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

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

    def restore(self, abstract: Any) -> tuple[Any, float]:
        """The newest state and its progress; `abstract` says how the state is placed.

        Args:
          abstract: a state of jax.ShapeDtypeStruct with shardings, as from the function `abstract`.

        Raises:
          ValueError: if the checkpoint cannot be read or belongs to another model.
        """
        step = self.latest()
        target = {'progress': np.float64(0), 'state': abstract}
        try:
            tree = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:  # for any fault in the files, the user needs to know in which and what to do
            others = sorted(set(self._manager.all_steps()) - {step})
            remains = f'delete it to go on from step {others[-1]}' if others else 'delete it to start again'
            broken = self.folder / str(step)
            raise ValueError(f'checkpoint {broken} cannot be restored ({_reason(error)}); {remains}') from error
        return tree['state'], float(tree['progress'])

    def close(self) -> None:
        """Waits for orbax to finish."""
        self._manager.close()


def _reason(error):
    return str(error).strip().split('\n')[0][:200]


def abstract(state: Any, shardings: Any) -> Any:
    """What `restore` fills: a state (arrays or shapes) as shapes with these shardings."""
    place = lambda leaf, there: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there)
    return jax.tree.map(place, state, shardings)
