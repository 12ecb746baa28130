"""What a stage of training is made of; autoencoder.py, contrastive.py, denoising.py and refiner.py make one each."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Objective(NamedTuple):
    """A stage: parameters, which of them are trained, data and loss.

    Attributes:
      params: parameters by network, trained and frozen ones, on the host.
      trained: whether the parameter of a path such as 'cam/encoder/conv_in/kernel' is trained.
      data: tree of arrays on the devices, from which batches are drawn; None with `steps`.
      draw: (data, key) -> batch, a tree of arrays [b, ...] that holds all that is random in a step; pure.
      loss: (params, batch) -> (loss, dict of scalars), a mean over the examples of the batch; pure.
      direct: the same, computing nothing twice: whose operations are those that are needed, and can be watched.
      finish: (params, model) -> (networks to save, model): what follows from the trained parameters, such as a scale.
      steps: number of a step -> iterator over the data of that step and of those after it, where they differ.
    """

    params: Any
    trained: Callable[[str], bool]
    data: Any
    draw: Callable
    loss: Callable
    direct: Callable
    finish: Callable = lambda params, model: (params, model)
    steps: Callable[[int], Iterator] | None = None

    def data_from(self, number) -> Iterator:
        """The data of step `number` and of those after it."""
        return self.steps(number) if self.steps else itertools.repeat(self.data)


def require(params, names, stage):
    """Raises ValueError where networks that the stage starts from are not there."""
    missing = [name for name in names if name not in params]
    if missing:
        missing = ', '.join(missing)
        raise ValueError(f'stage {stage} starts from {missing}: config.init.networks has to name them')
