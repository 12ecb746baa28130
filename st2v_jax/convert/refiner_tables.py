"""Conversion table of the Refiner, the Vid2Vid UNet, whose file numbers the blocks of a way in one list."""

from st2v_jax.convert.engine import CONV, POINT, POINT1D, Table, linear, norm
from st2v_jax.convert.unet_tables import temporal_convolutions, transformer
from st2v_jax.models.unet3d import UNetConfig


def _residual(theirs, level, n):
    """The rows of a residual block, which in this file contains the temporal convolution after it."""
    ours = f'{level}/resnets/{n}'
    return (
        *norm(f'{theirs}.in_layers.0', f'{ours}/norm1'),
        *linear(f'{theirs}.in_layers.2', f'{ours}/conv1', layout=CONV),
        *linear(f'{theirs}.emb_layers.1', f'{ours}/time_emb_proj'),
        *norm(f'{theirs}.out_layers.0', f'{ours}/norm2'),
        *linear(f'{theirs}.out_layers.3', f'{ours}/conv2', layout=CONV),
        *linear(f'{theirs}.skip_connection', f'{ours}/conv_shortcut', layout=POINT),
        # spelt like this in the files
        *temporal_convolutions(f'{theirs}.temopral_conv', f'{level}/temp_convs/{n}'),
    )


def _transformers(theirs, level, n):
    return (
        *transformer(f'{theirs}.1', f'{level}/attentions/{n}'),
        *transformer(f'{theirs}.2', f'{level}/temp_attentions/{n}', POINT1D),
    )


def _block(theirs, level, n, attention):
    """The rows of one layer of a level: a residual block and, with attention, transformers."""
    rows = _residual(f'{theirs}.0', level, n)
    return rows + _transformers(theirs, level, n) if attention else rows


def _encoder(config):
    number = 1  # block 0 is the first convolution
    for i, attention in enumerate(config.attention):
        for n in range(config.blocks):
            yield from _block(f'input_blocks.{number}', f'encoder/down_blocks/{i}', n, attention)
            number += 1
        if i + 1 < len(config.channels):
            yield from linear(f'input_blocks.{number}.op', f'encoder/downsamplers/{i}/conv', layout=CONV)
            number += 1


def _middle(ours='encoder/mid_block'):
    yield from _residual('middle_block.0', ours, 0)
    yield from _transformers('middle_block', ours, 0)
    yield from _residual('middle_block.3', ours, 1)


def _decoder(config):
    number = 0
    for i, attention in enumerate(reversed(config.attention)):
        for n in range(config.blocks + 1):
            yield from _block(f'output_blocks.{number}', f'decoder/up_blocks/{i}', n, attention)
            number += 1
        if i + 1 < len(config.channels):
            place = f'output_blocks.{number - 1}.{3 if attention else 1}'
            yield from linear(f'{place}.conv', f'decoder/upsamplers/{i}/conv', layout=CONV)


def refiner(config: UNetConfig) -> Table:
    """The table of the Vid2Vid UNet of this config; it fills the tree of `UNet3D`."""
    return Table(
        rows=(
            *linear('time_embed.0', 'encoder/time_embedding/linear_1'),
            *linear('time_embed.2', 'encoder/time_embedding/linear_2'),
            *linear('input_blocks.0.0', 'encoder/conv_in', layout=CONV),
            *transformer('input_blocks.0.1', 'encoder/transformer_in', POINT1D),
            *_encoder(config),
            *_middle(),
            *_decoder(config),
            *norm('out.0', 'decoder/conv_norm_out'),
            *linear('out.2', 'decoder/conv_out', layout=CONV),
        )
    )
