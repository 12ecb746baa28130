"""Checkpoints of a training run: the newest is resumed; one that is being written never replaces a good one."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run, in `folder`, named by step; the two newest are kept.

    Orbax writes each under a temporary name and renames it when it is complete.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, progress: float) -> None:
        """Writes the state after `step` steps and the fraction of the run that they were; waits until it is on disk.

        Raises OSError where it cannot be written, such as on a full disk; the one before stays as it is.
        """
        before = self.latest()
        if step == before:
            return
        tree = {'progress': np.float64(progress), 'state': state}
        try:
            self._manager.save(step, args=ocp.args.StandardSave(tree), force=True)
            self._manager.wait_until_finished()
        except Exception as error:  # tensorstore has errors of its own
            remains = 'there is none before it' if before is None else f'that of step {before} is whole'
            raise OSError(
                f'the checkpoint of step {step} cannot be written to {self.folder} ({_reason(error)}); '
                f'{remains}: make room and give the same command again'
            ) from error

    def restore(self, abstract: Any) -> tuple[Any, float]:
        """The newest state and its progress, placed as `abstract`, a state of jax.ShapeDtypeStruct with shardings.

        Raises ValueError where the checkpoint cannot be read or belongs to another model.
        """
        step = self.latest()
        target = {'progress': np.float64(0), 'state': abstract}
        try:
            tree = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:  # whatever is wrong with the files, the user needs to know which and what remains
            others = sorted(set(self._manager.all_steps()) - {step})
            remains = f'delete it to go on from step {others[-1]}' if others else 'delete it to start again'
            broken = self.folder / str(step)
            raise ValueError(f'checkpoint {broken} cannot be restored ({_reason(error)}); {remains}') from error
        return tree['state'], float(tree['progress'])

    def close(self) -> None:
        self._manager.close()


def _reason(error):
    return str(error).strip().split('\n')[0][:200]


def abstract(state: Any, shardings: Any) -> Any:
    """What `restore` fills: the shapes of a state (arrays or shapes), to be placed by `shardings`."""
    place = lambda leaf, there: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there)
    return jax.tree.map(place, state, shardings)
