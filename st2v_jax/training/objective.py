"""What a stage of training is made of; autoencoder.py, contrastive.py, denoising.py and refinement.py make one each."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Objective(NamedTuple):
    """A stage: parameters, which of them are trained, data and loss.

    Attributes:
      params: parameters by network, trained and frozen ones, on the host.
      trained: whether the parameter of a path such as 'cam/encoder/conv_in/kernel' is trained.
      data: tree of arrays on the devices, from which batches are drawn.
      draw: (data, key) -> batch, a tree of arrays [b, ...] that holds all that is random in a step; pure.
      loss: (params, batch) -> (loss, dict of scalars), a mean over the examples of the batch; pure.
      finish: (params, model) -> (networks to save, model): what follows from the trained parameters, such as a scale.
    """

    params: Any
    trained: Callable[[str], bool]
    data: Any
    draw: Callable
    loss: Callable
    finish: Callable = lambda params, model: (params, model)


def require(params, names, stage):
    """Raises ValueError where networks of the stages before are not there."""
    missing = [name for name in names if name not in params]
    if missing:
        missing = ', '.join(missing)
        raise ValueError(f'stage {stage} starts from trained {missing}: name their weights folder with --from')
