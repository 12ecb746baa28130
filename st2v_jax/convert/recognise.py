"""What a published file holds, recognised by its tensors: the networks, their sizes, and the table that reads them.

Sizes come from names and shapes. What shapes cannot show (widths of heads and norm groups, activations) comes from the
config.json beside a file; without one, it is that of a given model, by default the released one.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from st2v_jax.convert import encoder_tables, refiner_tables, unet_tables
from st2v_jax.convert.engine import ConversionError, Renamed, Table, together, within
from st2v_jax.models.apm import ApmConfig
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.cam import CamConfig
from st2v_jax.models.clip import ImageConfig, TextConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig

RELEASED = ModelConfig(profile='release')

# What torch's wrappers for several devices, compiling and checkpointing put into names, around any module
WRAPPERS = {'module', '_orig_mod', '_forward_module', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'}
# What a training program calls the whole network in its checkpoint
HOLDERS = {'model', 'ema', 'ema_model', 'net', 'network', 'state_dict', 'model_state_dict'}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The networks in a published file.

    Attributes:
      kind: what it is, in a few words.
      tensors: those of the whole file.
      sizes: the fields of ModelConfig that the file determines, as nested dicts.
      networks: our names of the networks that it fills.
      table: how it fills them; paths begin with the names of the networks.
    """

    kind: str
    tensors: Mapping[str, np.ndarray]
    sizes: dict[str, Any]
    networks: tuple[str, ...]
    table: Table

    @property
    def is_video_ldm(self) -> bool:
        """Whether this is a Video-LDM without CAM and APM."""
        return self.networks == ('unet',)

    def as_initial(self) -> 'Checkpoint':
        """The same Video-LDM as the `initial` network of a streaming model with the same sizes, for the first chunk."""
        return dataclasses.replace(self, sizes={}, networks=('initial',), table=unet_tables.INITIAL)


def recognise(
    tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any], model: ModelConfig = RELEASED
) -> list[Checkpoint]:
    """The networks in a file; [] for a file of an unknown kind.

    Args:
      tensors: those of the file.
      settings: the config.json beside it, or {}.
      model: has what neither the tensors nor the settings say.
    """
    return [checkpoint(kind, tensors, settings, model) for kind in kinds(tensors)]


def unwrapped(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The tensors by the names that their networks gave them, where wrappers put words before all names of a part.

    Such a word is one of WRAPPERS, which may come anywhere, or of HOLDERS, which come first. It is left out where no
    name beside it is without it. A file in which nothing known is found this way keeps its names.
    """
    following = defaultdict(set)
    split = {name: name.split('.') for name in tensors}
    for words in split.values():
        for n, word in enumerate(words):
            following[tuple(words[:n])].add(word)

    def plain(words):
        kept = []
        for n, word in enumerate(words[:-1]):
            droppable = word in WRAPPERS or (word in HOLDERS and not kept)
            if not (droppable and len(following[tuple(words[:n])]) == 1):
                kept.append(word)
        return '.'.join([*kept, words[-1]])

    names = {plain(words): name for name, words in split.items()}
    return Renamed(tensors, names) if names.keys() != tensors.keys() and kinds(names) else tensors


def kinds(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The kinds of networks in a file, told by names alone, [] where it is none of those we know."""
    return [kind for kind, (names, _) in KINDS.items() if all(name in tensors for name in names)]


def checkpoint(
    kind: str, tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any], model: ModelConfig = RELEASED
) -> Checkpoint:
    """The networks of one of a file's kinds; the arguments are those of `recognise`.

    Raises ConversionError where a tensor that tells a size is missing, ValueError for settings of another type.
    """
    return Checkpoint(kind, tensors, *KINDS[kind][1](_File(tensors, settings, model)))


@dataclass(frozen=True)
class _File:
    """A file, as far as sizes need it; `prefix` comes before every name that is looked up."""

    tensors: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]
    model: ModelConfig
    prefix: str = ''

    def under(self, prefix):
        return dataclasses.replace(self, prefix=prefix)

    def section(self, name):
        """The same file with the section of this name as its settings, if they have one."""
        return dataclasses.replace(self, settings=self.settings.get(name, self.settings))

    def has(self, name):
        return self.prefix + name in self.tensors

    def size(self, name, axis=0):
        if not self.has(name):
            raise ConversionError([f'{self.prefix}{name}: missing, so the sizes of the model are unknown'])
        shape = self.tensors[self.prefix + name].shape
        if not -len(shape) <= axis < len(shape):
            raise ConversionError([f'{self.prefix}{name}: {shape} has no axis {axis}'])
        return shape[axis]

    def count(self, template, start=0):
        """How many of the names with n = start, start + 1, ... exist."""
        n = start
        while self.has(template.format(n=n)):
            n += 1
        return n - start

    def sizes(self, template, count):
        return tuple(self.size(template.format(n=n)) for n in range(count))

    def said(self, name, otherwise):
        value = self.settings.get(name)
        if value is None:
            return otherwise
        if type(value) is not type(otherwise):
            raise ValueError(f'config.json: {name} is a {type(otherwise).__name__}, not {value!r}')
        return value


def _streaming(file):
    base, extractor = file.under('base_model.'), file.under('unet.')
    unet = _unet_config(base)
    mixer = 'mid_block.attentions.0.transformer_blocks.0.attn2.conv.weight'
    text_tokens, all_tokens = (base.size(mixer, axis) for axis in (0, 1))
    blocks = extractor.count('controlnet_cond_embedding.blocks.{n}.weight')
    widths = [extractor.size(f'controlnet_cond_embedding.blocks.{n}.weight') for n in range(1, blocks, 2)]
    sizes = {
        'backbone': unet,
        'cam': CamConfig(
            (extractor.size('controlnet_cond_embedding.conv_in.weight'), *widths),
            head_size=file.model.cam.head_size,
            inject_middle=base.has('cross_attention_merger_mid_block.temporal_transformer.norm.weight'),
        ),
        'apm': ApmConfig(
            file.size('resampler.context_embedding.0.weight', 1),
            file.size('resampler.context_embedding.0.weight'),
            all_tokens - text_tokens,
            text_tokens,
        ),
        'vae': _vae_config(file.under('vae.')),
        'text': _text_config(file.under('text_encoder.')),
        'image': _image_open_clip_config(file.under('image_encoder.model.')),
    }
    networks = tuple('unet' if name == 'backbone' else name for name in sizes)
    return sizes, networks, unet_tables.streaming_file(unet, sizes['text'])


def _video_ldm(file):
    return {'backbone': _unet_config(file)}, ('unet',), unet_tables.UNET


def _autoencoder(file):
    sizes = {'vae': _vae_config(file)}
    if 'scaling_factor' in file.settings:
        sizes['scale_factor'] = file.said('scaling_factor', 0.18215)
    return sizes, ('vae',), within(encoder_tables.AUTOENCODER, ours='vae/')


def _clip_text(file):
    config = _text_config(file)
    return {'text': config}, ('text',), within(encoder_tables.text(config), ours='text/')


def _clip_image(file):
    said = file.section('vision_config').said
    at = 'vision_model.embeddings'
    patch = file.size(f'{at}.patch_embedding.weight', -1)
    config = ImageConfig(
        image_size=patch * round((file.size(f'{at}.position_embedding.weight') - 1) ** 0.5),
        patch=patch,
        width=file.size(f'{at}.class_embedding'),
        layers=file.count('vision_model.encoder.layers.{n}.mlp.fc1.weight'),
        # the defaults of transformers, which a config.json leaves out
        heads=said('num_attention_heads', 12),
        mlp_width=file.size('vision_model.encoder.layers.0.mlp.fc1.weight'),
        embed_dim=file.size('visual_projection.weight'),
        activation=said('hidden_act', 'quick_gelu'),
        norm_epsilon=said('layer_norm_eps', 1e-5),
    )
    return {'image': config}, ('image',), within(encoder_tables.IMAGE, ours='image/')


def _refiner(file):
    channels, attention, blocks, number = [], [], [], 1
    while True:
        block = f'input_blocks.{number}'
        if file.has(f'{block}.0.in_layers.2.weight'):
            if not blocks or file.has(f'input_blocks.{number - 1}.op.weight'):
                channels.append(file.size(f'{block}.0.in_layers.2.weight'))
                attention.append(file.has(f'{block}.1.norm.weight'))
                blocks.append(0)
            blocks[-1] += 1
        elif not file.has(f'{block}.op.weight'):
            break
        number += 1
    config = UNetConfig(
        channels=tuple(channels),
        attention=tuple(attention),
        blocks=max(blocks, default=0),
        head_size=file.model.refiner.unet.head_size,
        input_heads=file.size('input_blocks.0.1.proj_in.weight') // file.model.refiner.unet.head_size,
        context_width=file.size('middle_block.1.transformer_blocks.0.attn2.to_k.weight', 1),
        in_channels=file.size('input_blocks.0.0.weight', 1),
        groups=file.model.refiner.unet.groups,
        out_channels=file.size('out.2.weight'),
        padding=file.model.refiner.unet.padding,
    )
    return {'refiner': {'unet': config}}, ('refiner',), within(refiner_tables.refiner(config), ours='refiner/')


def _first_stage(file):
    stage = file.under('first_stage_model.')
    levels = stage.count('encoder.down.{n}.block.0.conv1.weight')
    config = VaeConfig(
        stage.sizes('encoder.down.{n}.block.0.conv1.weight', levels),
        stage.count('encoder.down.0.block.{n}.conv1.weight'),
        stage.size('post_quant_conv.weight'),
        groups=file.model.for_refinement.vae.groups,
    )
    table = within(encoder_tables.autoencoder_ldm(config), 'first_stage_model.', 'refiner_vae/')
    return {'refiner': {'vae': config}}, ('refiner_vae',), together(table, Table((), encoder_tables.STABLE_DIFFUSION))


def _open_clip_text(file):
    config = TextConfig(
        vocab_size=file.size('token_embedding.weight'),
        width=file.size('token_embedding.weight', 1),
        layers=file.count('transformer.resblocks.{n}.ln_1.weight') - 1,
        heads=file.model.for_refinement.text.heads,
        mlp_width=file.size('transformer.resblocks.0.mlp.c_fc.weight'),
        max_tokens=file.size('positional_embedding'),
    )
    table = within(encoder_tables.text_open_clip(config), ours='refiner_text/')
    return {'refiner': {'text': config}}, ('refiner_text',), table


# kind: (names that all of its files have and no others, the function that reads it)
KINDS: dict[str, tuple[tuple[str, ...], Callable]] = {
    'streaming model': (('base_model.conv_in.weight', 'resampler.context_embedding.0.weight'), _streaming),
    'Video-LDM': (('conv_in.weight', 'transformer_in.proj_in.weight'), _video_ldm),
    'autoencoder': (('encoder.conv_in.weight', 'decoder.up_blocks.0.resnets.0.conv1.weight'), _autoencoder),
    'CLIP text tower': (('text_model.embeddings.token_embedding.weight',), _clip_text),
    'CLIP image tower': (('vision_model.embeddings.class_embedding',), _clip_image),
    'Refiner': (('input_blocks.0.0.weight', 'input_blocks.0.1.proj_in.weight'), _refiner),
    "Refiner's autoencoder": (('first_stage_model.encoder.conv_in.weight',), _first_stage),
    "Refiner's text tower": (('token_embedding.weight', 'transformer.resblocks.0.ln_1.weight'), _open_clip_text),
}


def _unet_config(file):
    first = 'down_blocks.{n}.resnets.0.conv1.weight'
    levels = file.count(first)
    head_size = file.said('attention_head_dim', file.model.backbone.head_size)
    return UNetConfig(
        channels=file.sizes(first, levels),
        attention=tuple(file.has(f'down_blocks.{n}.attentions.0.norm.weight') for n in range(levels)),
        blocks=file.count('down_blocks.0.resnets.{n}.conv1.weight'),
        head_size=head_size,
        input_heads=file.size('transformer_in.proj_in.weight') // head_size,
        context_width=file.size('mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight', 1),
        groups=file.said('norm_num_groups', file.model.backbone.groups),
        in_channels=file.size('conv_in.weight', 1),
        out_channels=file.size('conv_out.weight'),
    )


def _vae_config(file):
    first = 'encoder.down_blocks.{n}.resnets.0.conv1.weight'
    return VaeConfig(
        file.sizes(first, file.count(first)),
        file.count('encoder.down_blocks.0.resnets.{n}.conv1.weight'),
        file.size('post_quant_conv.weight'),
        groups=file.said('norm_num_groups', file.model.vae.groups),
    )


def _text_config(file):
    said = file.section('text_config').said
    heads, activation = file.model.text.heads, file.model.text.activation
    if file.settings:  # the defaults of transformers, which a config.json leaves out
        heads, activation = 8, 'quick_gelu'
    at = 'text_model.embeddings'
    return TextConfig(
        vocab_size=file.size(f'{at}.token_embedding.weight'),
        width=file.size(f'{at}.token_embedding.weight', 1),
        layers=file.count('text_model.encoder.layers.{n}.mlp.fc1.weight'),
        heads=said('num_attention_heads', heads),
        mlp_width=file.size('text_model.encoder.layers.0.mlp.fc1.weight'),
        max_tokens=file.size(f'{at}.position_embedding.weight'),
        embed_dim=file.size('text_projection.weight') if file.has('text_projection.weight') else None,
        activation=said('hidden_act', activation),
        norm_epsilon=said('layer_norm_eps', 1e-5),
    )


def _image_open_clip_config(file):
    patch = file.size('visual.conv1.weight', -1)
    return ImageConfig(
        image_size=patch * round((file.size('visual.positional_embedding') - 1) ** 0.5),
        patch=patch,
        width=file.size('visual.class_embedding'),
        layers=file.count('visual.transformer.resblocks.{n}.ln_1.weight'),
        heads=file.model.image.heads,
        mlp_width=file.size('visual.transformer.resblocks.0.mlp.c_fc.weight'),
        embed_dim=file.size('visual.proj', 1),
    )
