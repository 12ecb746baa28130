"""The parts of a training stage; autoencoder.py, contrastive.py, denoising.py and refiner.py each define one."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

Params = dict[str, Any]  # nested dicts of arrays by network


class Objective(NamedTuple):
    """A training stage: its parameters, which of them are trained, its data and its loss.

    Attributes:
      params: parameters by network, trained and frozen, on the host.
      trained: whether a parameter with a path such as 'cam/encoder/conv_in/kernel' is trained.
      data: tree of arrays on the devices, from which batches are drawn; None if `steps` is given.
      draw: (data, key) -> batch, a tree of arrays [b, ...] with everything random in a step; pure.
      loss: (params, batch) -> (loss, dict of scalars), a mean over the examples of the batch; pure.
      direct: the loss without rematerialisation, to count its operations and to find values that are not finite.
      finish: (params, model) -> (networks to save, model); adds what follows from the training, such as a scale.
      steps: number of a step -> iterator over the data of that step and of later ones, if they differ.
    """

    params: Params
    trained: Callable[[str], bool]
    data: Any
    draw: Callable
    loss: Callable
    direct: Callable
    finish: Callable = lambda params, model: (params, model)
    steps: Callable[[int], Iterator] | None = None

    def data_from(self, number: int) -> Iterator:
        """The data of step `number` and of later steps."""
        return self.steps(number) if self.steps else itertools.repeat(self.data)


def require(params: Params, names: Iterable[str], stage: str) -> None:
    """Raises ValueError if networks that the stage starts from are missing."""
    missing = [name for name in names if name not in params]
    if missing:
        missing = ', '.join(missing)
        raise ValueError(f'stage {stage} starts from {missing}: add them to config.init.networks')
