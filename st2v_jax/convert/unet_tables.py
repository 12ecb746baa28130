"""Conversion tables of the Video-LDM UNet, CAM and APM under the names of diffusers and of the streaming release."""

from st2v_jax.convert import encoder_tables
from st2v_jax.convert.engine import CONV, FRAMES, LINEAR, POINT, Layout, Row, Table, linear, norm, together, within
from st2v_jax.models.clip import TextConfig
from st2v_jax.models.unet3d import UNetConfig

# A mixer's convolution over features: torch has [out tokens, in tokens, k], we [k, in, out].
_MIXER = Layout('convolution [o, i, k]', 3, lambda w: w.transpose(2, 1, 0), lambda w: w.transpose(2, 1, 0))


def attention(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of one multi-head attention."""
    return (
        *linear(f'{theirs}.to_{{to:q|k|v}}', f'{ours}/to_{{to}}', bias=False),
        *linear(f'{theirs}.to_out.0', f'{ours}/to_out'),
    )


def transformer(theirs: str, ours: str, layout: Layout = LINEAR) -> tuple[Row, ...]:
    """The rows of a spatial or temporal transformer; `layout` is that of its projections."""
    block = f'{theirs}.transformer_blocks.0'
    return (
        *norm(f'{theirs}.norm', f'{ours}/norm'),
        *linear(f'{theirs}.proj_{{way:in|out}}', f'{ours}/proj_{{way}}', layout=layout),
        *norm(f'{block}.norm{{i}}', f'{ours}/norm{{i}}'),
        *attention(f'{block}.attn{{i}}', f'{ours}/attn{{i}}'),
        *linear(f'{block}.ff.net.0.proj', f'{ours}/ff/proj'),
        *linear(f'{block}.ff.net.2', f'{ours}/ff/out'),
    )


def temporal_convolutions(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of a temporal convolution block."""
    rows = []
    for k in range(4):
        # The last three have a dropout between norm and convolution.
        rows += norm(f'{theirs}.conv{k + 1}.0', f'{ours}/norms/{k}')
        rows += linear(f'{theirs}.conv{k + 1}.{3 if k else 2}', f'{ours}/convs/{k}', layout=FRAMES)
    return tuple(rows)


def _level(theirs, ours):
    resnet = (f'{theirs}.resnets.{{n}}', f'{ours}/resnets/{{n}}')
    return (
        *norm(f'{resnet[0]}.norm{{i}}', f'{resnet[1]}/norm{{i}}'),
        *linear(f'{resnet[0]}.conv{{i}}', f'{resnet[1]}/conv{{i}}', layout=CONV),
        *linear(f'{resnet[0]}.time_emb_proj', f'{resnet[1]}/time_emb_proj'),
        *linear(f'{resnet[0]}.conv_shortcut', f'{resnet[1]}/conv_shortcut', layout=POINT),
        *temporal_convolutions(f'{theirs}.temp_convs.{{n}}', f'{ours}/temp_convs/{{n}}'),
        *transformer(f'{theirs}.{{kind:attentions|temp_attentions}}.{{n}}', f'{ours}/{{kind}}/{{n}}'),
    )


def _encoder(ours):
    return (
        *linear('time_embedding.linear_{i}', f'{ours}/time_embedding/linear_{{i}}'),
        *linear('conv_in', f'{ours}/conv_in', layout=CONV),
        *transformer('transformer_in', f'{ours}/transformer_in'),
        *_level('down_blocks.{level}', f'{ours}/down_blocks/{{level}}'),
        *linear('down_blocks.{level}.downsamplers.0.conv', f'{ours}/downsamplers/{{level}}/conv', layout=CONV),
        *_level('mid_block', f'{ours}/mid_block'),
    )


def _unet(ours):
    return (
        *_encoder(f'{ours}/encoder'),
        *_level('up_blocks.{level}', f'{ours}/decoder/up_blocks/{{level}}'),
        *linear('up_blocks.{level}.upsamplers.0.conv', f'{ours}/decoder/upsamplers/{{level}}/conv', layout=CONV),
        *norm('conv_norm_out', f'{ours}/decoder/conv_norm_out'),
        *linear('conv_out', f'{ours}/decoder/conv_out', layout=CONV),
    )


# UNet3DConditionModel under the names of diffusers. It fills the tree {'unet': ...}, or {'initial': ...} if it is the
# first chunk's own.
UNET, INITIAL = Table(rows=_unet('unet')), Table(rows=_unet('initial'))


def injector(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of one of CAM's feature injectors."""
    theirs = f'{theirs}.temporal_transformer'
    return (
        *norm(f'{theirs}.norm', f'{ours}/norm'),
        *linear(f'{theirs}.proj_{{way:in|out}}', f'{ours}/proj_{{way}}'),
        *attention(f'{theirs}.attention', f'{ours}/attention'),
    )


def mixer(attention: str, ours: str) -> tuple[Row, ...]:
    """The rows of one of APM's mixers, which the release keeps inside its cross-attention."""
    return (
        Row(f'{attention}.conv.weight', f'{ours}/kernel', _MIXER),
        Row(f'{attention}.conv.bias', f'{ours}/bias'),
        *norm(f'{attention}.conv_ln', f'{ours}/norm'),
        Row(f'{attention}.alpha', f'{ours}/alpha'),
    )


def _cross_attentions(config):
    """The names of the spatial cross-attentions in the order of computation."""
    down = [(f'down_blocks.{i}', config.blocks) for i, has in enumerate(config.attention) if has]
    up = [(f'up_blocks.{i}', config.blocks + 1) for i, has in enumerate(reversed(config.attention)) if has]
    places = [*down, ('mid_block', 1), *up]
    return [f'{level}.attentions.{n}.transformer_blocks.0.attn2' for level, count in places for n in range(count)]


def base_model(config: UNetConfig) -> Table:
    """`base_model.` of the streaming release: UNet, APM's mixers and CAM's injectors."""
    mixers = enumerate(_cross_attentions(config))
    return Table(
        rows=(
            *UNET.rows,
            *(row for n, attention in mixers for row in mixer(attention, f'apm/mixers/{n}')),
            *injector('cross_attention_merger_down_blocks.{n}', 'cam/injectors/{n}'),
            *injector('cross_attention_merger_mid_block', 'cam/middle_injector'),
        )
    )


# `unet.` of the streaming release, which is CAM's feature extractor and conditioning encoder.
EXTRACTOR = Table(
    rows=(
        *_encoder('cam/extractor'),
        *linear('controlnet_cond_embedding.conv_{way:in|out}', 'cam/encoder/conv_{way}', layout=CONV),
        *linear('controlnet_cond_embedding.blocks.{n}', 'cam/encoder/blocks/{n}', layout=CONV),
    )
)

# `resampler.` of the streaming release, which makes the anchor frame's tokens.
ANCHOR = Table(
    rows=(
        *linear('context_embedding.0', 'apm/anchor/linear_1'),
        *linear('context_embedding.2', 'apm/anchor/linear_2'),
    )
)


def streaming_file(unet: UNetConfig, text: TextConfig) -> Table:
    """The table of streaming_t2v.ckpt, which has every network in one file; its `unet.` is CAM's extractor."""
    return together(
        within(base_model(unet), 'base_model.'),
        within(EXTRACTOR, 'unet.'),
        within(ANCHOR, 'resampler.'),
        within(encoder_tables.AUTOENCODER, 'vae.', 'vae/'),
        within(encoder_tables.text(text), 'text_encoder.', 'text/'),
        within(encoder_tables.IMAGE_OPEN_CLIP, 'image_encoder.model.', 'image/'),
    )
