"""Conversion tables of the encoders, one for each network and each way it is published.

A table is a function of the network's config if its checkpoint counts levels from the other end or has more layers.
"""

from st2v_jax.convert.engine import CONV, LINEAR, POINT, SAME, VECTOR, Row, Table, fused, linear, norm
from st2v_jax.models.clip import TextConfig
from st2v_jax.models.vae import VaeConfig

QKV = ('to_q', 'to_k', 'to_v')


def _blocks_transformers(tower):
    block = f'{tower}.encoder.layers.{{n}}'
    return (
        *norm(f'{block}.layer_norm{{i}}', 'blocks/{n}/norm{i}'),
        *linear(f'{block}.self_attn.{{to:q|k|v|out}}_proj', 'blocks/{n}/to_{to}'),
        *linear(f'{block}.mlp.fc{{i}}', 'blocks/{n}/fc{i}'),
    )


def _blocks_open_clip(block):
    rows = (
        *norm(f'{block}.ln_{{i}}', 'blocks/{n}/norm{i}'),
        *linear(f'{block}.attn.out_proj', 'blocks/{n}/to_out'),
        *linear(f'{block}.mlp.c_fc', 'blocks/{n}/fc1'),
        *linear(f'{block}.mlp.c_proj', 'blocks/{n}/fc2'),
    )
    # Queries, keys and values are one matrix and one bias.
    joint = (
        Row(f'{block}.attn.in_proj_weight', tuple(f'blocks/{{n}}/{to}/kernel' for to in QKV), fused(LINEAR, 3)),
        Row(f'{block}.attn.in_proj_bias', tuple(f'blocks/{{n}}/{to}/bias' for to in QKV), fused(SAME, 3)),
    )
    return rows + joint


_LEVELS = (
    ('encoder.down_blocks.{level}', 'encoder/down/{level}'),
    ('decoder.up_blocks.{level}', 'decoder/up/{level}'),
    ('{part:encoder|decoder}.mid_block', '{part}/mid'),
)
_ATTENTION, _MID = '{part:encoder|decoder}.mid_block.attentions.0', '{part}/mid/attention'
# Names of the attention's projections in older files.
_OLDER = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}

# AutoencoderKL under the names of diffusers.
AUTOENCODER = Table(
    rows=(
        *linear('{part:encoder|decoder}.conv_in', '{part}/conv_in', layout=CONV),
        *(
            row
            for theirs, ours in _LEVELS
            for row in (
                *norm(f'{theirs}.resnets.{{n}}.norm{{i}}', f'{ours}/resnets/{{n}}/norm{{i}}'),
                *linear(f'{theirs}.resnets.{{n}}.conv{{i}}', f'{ours}/resnets/{{n}}/conv{{i}}', layout=CONV),
                *linear(f'{theirs}.resnets.{{n}}.conv_shortcut', f'{ours}/resnets/{{n}}/conv_shortcut', layout=POINT),
            )
        ),
        *linear('encoder.down_blocks.{level}.downsamplers.0.conv', 'encoder/down/{level}/downsample', layout=CONV),
        *linear('decoder.up_blocks.{level}.upsamplers.0.conv', 'decoder/up/{level}/upsample', layout=CONV),
        *norm(f'{_ATTENTION}.group_norm', f'{_MID}/norm'),
        *linear(f'{_ATTENTION}.to_{{to:q|k|v}}', f'{_MID}/to_{{to}}'),
        *linear(f'{_ATTENTION}.to_out.0', f'{_MID}/to_out'),
        *norm('{part:encoder|decoder}.conv_norm_out', '{part}/norm_out'),
        *linear('encoder.conv_out', 'encoder/to_moments', layout=CONV),
        *linear('decoder.conv_out', 'decoder/to_image', layout=CONV),
        *linear('{quant:quant_conv|post_quant_conv}', '{quant}', layout=POINT),
    ),
    renamed=tuple(
        (f'{_ATTENTION}.{old}.{{leaf:weight|bias}}', f'{_ATTENTION}.{new}.{{leaf}}') for old, new in _OLDER.items()
    ),
)


def autoencoder_ldm(config: VaeConfig) -> Table:
    """AutoencoderKL under the names of latent diffusion, whose decoder counts levels from full resolution."""
    deepest = len(config.block_channels) - 1
    blocks = [
        ('encoder.down.{level}.block.{n}', 'encoder/down/{level}/resnets/{n}'),
        *(
            (f'decoder.up.{deepest - level}.block.{{n}}', f'decoder/up/{level}/resnets/{{n}}')
            for level in range(deepest + 1)
        ),
        *((f'{{part:encoder|decoder}}.mid.block_{n + 1}', f'{{part}}/mid/resnets/{n}') for n in range(2)),
    ]
    attention, mid = '{part:encoder|decoder}.mid.attn_1', '{part}/mid/attention'
    return Table(
        rows=(
            *linear('{part:encoder|decoder}.conv_in', '{part}/conv_in', layout=CONV),
            *(
                row
                for theirs, ours in blocks
                for row in (
                    *norm(f'{theirs}.norm{{i}}', f'{ours}/norm{{i}}'),
                    *linear(f'{theirs}.conv{{i}}', f'{ours}/conv{{i}}', layout=CONV),
                    *linear(f'{theirs}.nin_shortcut', f'{ours}/conv_shortcut', layout=POINT),
                )
            ),
            *linear('encoder.down.{level}.downsample.conv', 'encoder/down/{level}/downsample', layout=CONV),
            *(
                row
                for level in range(deepest)
                for row in linear(
                    f'decoder.up.{deepest - level}.upsample.conv', f'decoder/up/{level}/upsample', layout=CONV
                )
            ),
            *norm(f'{attention}.norm', f'{mid}/norm'),
            *linear(f'{attention}.{{to:q|k|v}}', f'{mid}/to_{{to}}', layout=POINT),
            *linear(f'{attention}.proj_out', f'{mid}/to_out', layout=POINT),
            *norm('{part:encoder|decoder}.norm_out', '{part}/norm_out'),
            *linear('encoder.conv_out', 'encoder/to_moments', layout=CONV),
            *linear('decoder.conv_out', 'decoder/to_image', layout=CONV),
            *linear('{quant:quant_conv|post_quant_conv}', '{quant}', layout=POINT),
        )
    )


def text(config: TextConfig) -> Table:
    """The text tower under the names of transformers: CLIPTextModel, also with projection, or the whole CLIPModel."""
    projection = Row('text_projection.weight', 'projection/kernel', LINEAR)
    ignored = (
        ('text_model.embeddings.position_ids', 'the numbers 0, 1, 2, ...'),
        ('{rest:vision_model.+|visual_projection.+}', 'the image tower'),
        ('logit_scale', 'temperature of the contrastive loss'),
    )
    if config.embed_dim is None:
        ignored += (('text_projection.weight', 'a tower without embed_dim returns states only'),)
    return Table(
        rows=(
            Row('text_model.embeddings.token_embedding.weight', 'tokens/embedding'),
            Row('text_model.embeddings.position_embedding.weight', 'positions/embedding'),
            *_blocks_transformers('text_model'),
            *norm('text_model.final_layer_norm', 'norm_out'),
            *([] if config.embed_dim is None else [projection]),
        ),
        ignored=ignored,
    )


# The image tower under the names of transformers: CLIPVisionModelWithProjection or the whole CLIPModel.
IMAGE = Table(
    rows=(
        Row('vision_model.embeddings.class_embedding', 'class_token/embedding', VECTOR),
        Row('vision_model.embeddings.patch_embedding.weight', 'patches/kernel', CONV),
        Row('vision_model.embeddings.position_embedding.weight', 'positions/embedding'),
        *norm('vision_model.pre_layrnorm', 'norm_in'),  # spelt like this in the files
        *_blocks_transformers('vision_model'),
        *norm('vision_model.post_layernorm', 'norm_out'),
        Row('visual_projection.weight', 'projection/kernel', LINEAR),
    ),
    ignored=(
        ('vision_model.embeddings.position_ids', 'the numbers 0, 1, 2, ...'),
        ('{rest:text_model.+|text_projection.+}', 'the text tower'),
        ('logit_scale', 'temperature of the contrastive loss'),
    ),
)


def text_open_clip(config: TextConfig) -> Table:
    """The text tower of an open_clip model up to its penultimate layer: one block fewer than the file has."""
    used = '|'.join(str(n) for n in range(config.layers))
    # open_clip multiplies by its projection from the right, as we do.
    projection = Row('text_projection', 'projection/kernel')
    ignored = (
        (f'transformer.resblocks.{config.layers}.{{rest:.+}}', 'the last block: the layer before it is the output'),
        ('{rest:visual.+}', 'the image tower'),
        ('logit_scale', 'temperature of the contrastive loss'),
    )
    if config.embed_dim is None:
        ignored += (('text_projection', 'a tower without embed_dim returns states only'),)
    return Table(
        rows=(
            Row('token_embedding.weight', 'tokens/embedding'),
            Row('positional_embedding', 'positions/embedding'),
            *_blocks_open_clip(f'transformer.resblocks.{{n:{used}}}'),
            *norm('ln_final', 'norm_out'),
            *([] if config.embed_dim is None else [projection]),
        ),
        ignored=ignored,
    )


# The image tower of an open_clip model, with or without the text tower beside it.
IMAGE_OPEN_CLIP = Table(
    rows=(
        Row('visual.class_embedding', 'class_token/embedding', VECTOR),
        Row('visual.conv1.weight', 'patches/kernel', CONV),
        Row('visual.positional_embedding', 'positions/embedding'),
        *norm('visual.ln_pre', 'norm_in'),
        *_blocks_open_clip('visual.transformer.resblocks.{n}'),
        *norm('visual.ln_post', 'norm_out'),
        Row('visual.proj', 'projection/kernel'),
    ),
    ignored=(
        # The streaming release drops the text blocks and leaves the rest of the text tower in its file.
        (
            '{rest:positional_embedding|text_projection|token_embedding.weight|ln_final.+|transformer.+}',
            'the text tower',
        ),
        ('logit_scale', 'temperature of the contrastive loss'),
    ),
)

# The other tensors in the file of Stable Diffusion 2.1, whose first stage is the Refiner's autoencoder.
STABLE_DIFFUSION = (
    (r'{rest:(?:model|model_ema|cond_stage_model)\..+}', 'its image UNet, averages of that, and its text tower'),
    (
        r'{rest:betas|logvar|lvlb_weights|(?:\w+_)?alphas_cumprod(?:_prev)?|posterior_\w+}',
        'tables of its noise schedule, which follow from its settings',
    ),
)
