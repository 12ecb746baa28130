"""Conversion tables of the networks that metrics use, and what opens their files."""

from pathlib import Path
from typing import Any

from st2v_jax.convert.engine import CONV, Layout, Row, Table, convert, linear
from st2v_jax.models import build
from st2v_jax.models.lpips import Lpips
from st2v_jax.storage.containers import read

CHANNELS = Layout('weights [1, c, 1, 1]', 4, lambda w: w.reshape(-1), lambda w: w.reshape(1, -1, 1, 1))

# Places of the convolutions among the features of torchvision's alexnet and vgg16
PLACES = {'alex': (0, 3, 6, 8, 10), 'vgg': (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}


def lpips_table(trunk: str) -> Table:
    """torchvision's network for classification, and the weights of the channels as the authors publish them."""
    convs = [linear(f'features.{n}', f'convs/{i}', layout=CONV) for i, n in enumerate(PLACES[trunk])]
    return Table(
        rows=(*(row for conv in convs for row in conv), Row('lin{n}.model.1.weight', 'weights/{n}', CHANNELS)),
        ignored=(('classifier.{n}.{part:weight|bias}', 'LPIPS takes features, not classes'),),
    )


def read_lpips(trunk_file: str | Path, weights_file: str | Path, trunk: str = 'alex') -> dict[str, Any]:
    """The parameters of `Lpips` from two files, read as data.

    Args:
      trunk_file: torchvision's alexnet or vgg16 (`alexnet-owt-*.pth`, `vgg16-*.pth`).
      weights_file: of the channels, version 0.1 of the authors' program (`alex.pth`, `vgg.pth`).
      trunk: 'alex' or 'vgg'.

    Raises:
      ConversionError: with everything that does not fit.
      UnsafeCheckpointError: for a file that holds anything but tensors.
    """
    tensors = {**read(trunk_file), **read(weights_file)}
    return convert(tensors, lpips_table(trunk), build.network(Lpips, trunk).abstract)
