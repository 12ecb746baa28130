"""A folder in our format written under the published names: a diffusers folder with the release's files beside it.

    model_index.json  unet/  vae/  text_encoder/  image_encoder/  scheduler/     as diffusers and transformers read them
    streaming_t2v.safetensors                                                    the names of streaming_t2v.ckpt
    non_ema_0035000.safetensors  v2-1_512-ema-pruned.safetensors  open_clip_pytorch_model.safetensors    the Refiner's

Tensors keep their type. What the published formats cannot store (the lengths of chunks, guidance, the rows of a small
text tower) is in model_index.json, so that an import gives the same model again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from st2v_jax.convert import encoder_tables, refiner_tables, unet_tables
from st2v_jax.convert.engine import Exported, within
from st2v_jax.convert.nearby import hint
from st2v_jax.errors import WeightsError
from st2v_jax.models.ablations import ATTENTION
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.storage.atomic import write_bytes
from st2v_jax.storage.safetensors import write
from st2v_jax.tokenizer import END, START, write_vocabulary
from st2v_jax.weights.folder import is_ours, read
from st2v_jax.weights.layout import networks, streaming

CLASSES = {
    'unet': ['diffusers', 'UNet3DConditionModel'],
    'vae': ['diffusers', 'AutoencoderKL'],
    'text_encoder': ['transformers', 'CLIPTextModel'],
    'tokenizer': ['transformers', 'CLIPTokenizer'],
    'scheduler': ['diffusers', 'DDIMScheduler'],
}


def export(folder: str | Path, to: str | Path, on_file: Callable[[str], None] = lambda name: None) -> None:
    """Writes the model in `folder` to `to`; on_file receives the name of every file of weights before it is written.

    Raises ValueError for a folder that is not in our format, for an ablation model, for a model with CAM that lacks
    other networks of the streaming stage, and if `to` holds a model that was not written here.
    """
    folder, to = Path(folder), Path(to)
    if folder.is_dir() and not is_ours(folder):
        raise WeightsError(f'{folder}: there is no config.json of st2v_jax{hint(folder)}')
    _check_ours(to / 'model_index.json')
    model = read(folder)
    config, tokenizer = model.config, model.tokenizer
    if config.apm is None or config.cam.fusion != ATTENTION:
        raise WeightsError(f'{folder} is an ablation model: the published formats know CAM and APM only')
    held = [name for name in networks(config) if name in model.held]
    lacking = [name for name in _in_one_file(config) if 'cam' in held and name not in held]
    if lacking or not held:
        raise WeightsError(f'{folder} is not a whole model: {", ".join(lacking) or "networks"} missing')
    for name, (inside, table, settings) in _files(config, held).items():
        on_file(name)
        file = to / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, Exported(model.arrays(inside), table), notes={'format': 'pt'})
        if settings is not None:
            _write_json(file.with_name('config.json'), settings)
    _write_json(to / 'scheduler' / 'scheduler_config.json', _scheduler(config.diffusion))
    if tokenizer.rows is None:
        write_vocabulary(to / 'tokenizer', tokenizer.pad)
    components = {name: kind for name, kind in CLASSES.items() if (to / name).is_dir()}
    ours = {'config': config.to_dict(), 'networks': held, 'tokenizer': tokenizer.to_dict()}
    _write_json(to / 'model_index.json', {'_class_name': 'TextToVideoSDPipeline', **components, '_st2v_jax': ours})


def _check_ours(index):
    """Raises ValueError for the model_index.json of a model that was not written by `export`."""
    try:
        if '_st2v_jax' not in json.loads(index.read_text('utf-8')):
            raise ValueError(f'{index.parent} holds another model: choose another folder')
    except FileNotFoundError:
        pass


def _in_one_file(config):
    """The networks of streaming_t2v.ckpt, which has none for the first chunk."""
    return tuple(name for name in streaming(config) if name != 'initial')


def _files(config, held):
    """{name of a file: (its networks, table, config.json beside it or None)} for files whose networks are held."""
    own, first = config.for_refinement, 'initial' if 'initial' in held else 'unet'
    unet = unet_tables.INITIAL if first == 'initial' else unet_tables.UNET
    vae = within(encoder_tables.AUTOENCODER, ours='vae/')
    text = within(encoder_tables.text(config.text), ours='text/')
    image = within(encoder_tables.IMAGE, ours='image/')
    one_file = unet_tables.streaming_file(config.backbone, config.text)
    refiner = within(refiner_tables.refiner(config.refiner.unet), ours='refiner/')
    refiner_vae = within(encoder_tables.autoencoder_ldm(own.vae), 'first_stage_model.', 'refiner_vae/')
    refiner_text = within(encoder_tables.text_open_clip(own.text), ours='refiner_text/')
    files = {
        'unet/diffusion_pytorch_model.safetensors': ((first,), unet, unet_settings(config.backbone)),
        'vae/diffusion_pytorch_model.safetensors': (('vae',), vae, _vae(config)),
        'text_encoder/model.safetensors': (('text',), text, _text(config.text)),
        'image_encoder/model.safetensors': (('image',), image, _image(config.image)),
        'streaming_t2v.safetensors': (_in_one_file(config), one_file, None),
        'non_ema_0035000.safetensors': (('refiner',), refiner, None),
        'v2-1_512-ema-pruned.safetensors': (('refiner_vae',), refiner_vae, None),
        'open_clip_pytorch_model.safetensors': (('refiner_text',), refiner_text, None),
    }
    if 'cam' in held:
        del files['image_encoder/model.safetensors']  # it is in the streaming model's file
    return {name: file for name, file in files.items() if {*file[0]} <= {*held}}


def unet_settings(config: UNetConfig) -> dict[str, Any]:
    """The config of the UNet3DConditionModel of diffusers that computes what our UNet computes."""
    kinds = [f'{"CrossAttn" if attention else ""}{{}}Block3D' for attention in config.attention]
    return {
        '_class_name': 'UNet3DConditionModel',
        'in_channels': config.in_channels,
        'out_channels': config.out_channels,
        'down_block_types': [kind.format('Down') for kind in kinds],
        'up_block_types': [kind.format('Up') for kind in reversed(kinds)],
        'block_out_channels': config.channels,
        'layers_per_block': config.blocks,
        'norm_num_groups': config.groups,
        'cross_attention_dim': config.context_width,
        'attention_head_dim': config.head_size,
    }


def _vae(config):
    levels = len(config.vae.block_channels)
    return {
        '_class_name': 'AutoencoderKL',
        'down_block_types': ['DownEncoderBlock2D'] * levels,
        'up_block_types': ['UpDecoderBlock2D'] * levels,
        'block_out_channels': config.vae.block_channels,
        'layers_per_block': config.vae.layers_per_block,
        'latent_channels': config.vae.latent_channels,
        'norm_num_groups': config.vae.groups,
        'sample_size': max(config.frame_size),
        'scaling_factor': config.scale_factor,
    }


def _transformer(config):
    return {
        'hidden_size': config.width,
        'intermediate_size': config.mlp_width,
        'num_hidden_layers': config.layers,
        'num_attention_heads': config.heads,
        'hidden_act': config.activation,
        'layer_norm_eps': config.norm_epsilon,
    }


def _text(config):
    return _transformer(config) | {
        'architectures': ['CLIPTextModel' if config.embed_dim is None else 'CLIPTextModelWithProjection'],
        'model_type': 'clip_text_model',
        'vocab_size': config.vocab_size,
        'max_position_embeddings': config.max_tokens,
        'projection_dim': config.embed_dim or config.width,
        'bos_token_id': START,
        'eos_token_id': END,
    }


def _image(config):
    return _transformer(config) | {
        'architectures': ['CLIPVisionModelWithProjection'],
        'model_type': 'clip_vision_model',
        'image_size': config.image_size,
        'patch_size': config.patch,
        'projection_dim': config.embed_dim,
    }


def _scheduler(config):
    return {
        '_class_name': 'DDIMScheduler',
        'num_train_timesteps': config.steps,
        'beta_start': config.beta_start,
        'beta_end': config.beta_end,
        'beta_schedule': 'scaled_linear',
        'prediction_type': 'v_prediction' if config.prediction == 'v' else config.prediction,
        'rescale_betas_zero_snr': config.zero_terminal_snr,
        'timestep_spacing': 'trailing' if config.zero_terminal_snr else 'leading',
        'clip_sample': False,
        'set_alpha_to_one': False,
        'steps_offset': 1,
    }


def _write_json(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, (json.dumps(value, indent=2) + '\n').encode())
