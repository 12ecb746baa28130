"""Files of exactly the published names, in the published containers, become a model: nothing is lost or left empty.

Widths are scaled down if a file would be too large; at full size the shapes are checked without numbers.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch_files as files

from st2v_jax.convert.assembly import merged
from st2v_jax.convert.engine import Converted
from st2v_jax.convert.recognise import RELEASED, recognise
from st2v_jax.models.config import ModelConfig
from st2v_jax.storage.containers import read
from st2v_jax.trees import flatten
from st2v_jax.weights.layout import abstract, streaming

FOLDER = Path(__file__).parents[1] / 'manifests'
# id: published file, kind, networks that it fills, whether it is wrapped in 'state_dict'
PUBLISHED = {
    'streaming_t2v_ckpt': ('streaming_t2v.ckpt', 'streaming model', streaming(ModelConfig()), True),
    'ms17b_unet': ('diffusion_pytorch_model.bin', 'Video-LDM', ('unet',), False),
    'ms17b_vae': ('diffusion_pytorch_model.bin', 'autoencoder', ('vae',), False),
    'ms17b_text_encoder': ('pytorch_model.bin', 'CLIP text tower', ('text',), False),
    'vid2vid_unet': ('non_ema_0035000.pth', 'Refiner', ('refiner',), True),
    'vid2vid_vae_first_stage': ('v2-1_512-ema-pruned.ckpt', "Refiner's autoencoder", ('refiner_vae',), True),
    'open_clip_pytorch_model': ('open_clip_pytorch_model.bin', "Refiner's text tower", ('refiner_text',), False),
}
# Tensors that may be in a file and in none of its networks, and why
IGNORED = {
    # the temperature of the contrastive loss, and what the release left of open_clip's text tower in its image encoder
    'streaming_t2v_ckpt': r'image_encoder\.model\.(positional_embedding|text_projection|logit_scale|'
    r'token_embedding\.weight|ln_final\.(weight|bias))',
    # the image tower, which the Refiner does not use; the last block, as the one before it is read; the temperature
    'open_clip_pytorch_model': r'visual\..+|transformer\.resblocks\.23\..+|text_projection|logit_scale',
}


def shapes(name):
    return json.loads((FOLDER / f'{name}.json').read_text())['tensors']


def scaled(name, size):
    """A length of a released tensor, scaled for `name` so that all sizes still fit together."""
    if re.match(r'(vae|first_stage_model|encoder|decoder)\.', name):
        return size // 4 if size in (128, 256, 512) else size  # 32 norm groups stay possible
    if size % 320 == 0:  # widths of UNets and of ViT-H
        return size // 5
    if re.search(r'transformer_in|input_blocks\.0\.1\.', name):
        return size  # 8 heads of 64 stay
    return size // 8 if size % 1024 == 0 else size  # widths of text


def small(manifest):
    """{name: array} for the names in the manifest, each array filled with a number of its own."""
    arrays = {}
    for number, (name, shape) in enumerate(shapes(manifest).items()):
        shape = [scaled(name, size) for size in shape]
        arrays[name] = np.full(shape, np.float16((number + 1) / 4096), np.float16)
    return arrays


def zipped(manifest, folder):
    file, *_, wrapped = PUBLISHED[manifest]
    return files.checkpoint('zip', folder / file, small(manifest), wrapped)


def legacy(manifest, folder):
    file, *_, wrapped = PUBLISHED[manifest]
    return files.checkpoint('legacy', folder / file, small(manifest), wrapped)


def safetensors(manifest, folder):
    return files.safetensors(folder / 'diffusion_pytorch_model.safetensors', small(manifest))


def sharded(manifest, folder):
    arrays, places = small(manifest), {}
    names = list(arrays)
    for shard in range(3):
        file = f'model-{shard + 1:05d}-of-00003.safetensors'
        mine = names[shard::3]
        files.safetensors(folder / file, {name: arrays[name] for name in mine})
        places |= dict.fromkeys(mine, file)
    index = folder / 'model.safetensors.index.json'
    index.write_text(json.dumps({'metadata': {'total_size': 0}, 'weight_map': places}))
    return index


# Small files in every container, large ones in the containers that they are published in
WRITTEN = [
    *(('streaming_t2v_ckpt', container) for container in (zipped, legacy)),
    *(('ms17b_unet', container) for container in (zipped, safetensors)),
    *(('ms17b_vae', container) for container in (zipped, legacy, safetensors, sharded)),
    *(('ms17b_text_encoder', container) for container in (zipped, legacy, safetensors, sharded)),
    *(('vid2vid_unet', container) for container in (zipped, legacy)),
    *(('vid2vid_vae_first_stage', container) for container in (zipped, legacy)),
    *(('open_clip_pytorch_model', container) for container in (zipped, legacy)),
]


@pytest.mark.parametrize('name, container', WRITTEN, ids=[f'{name} {write.__name__}' for name, write in WRITTEN])
def test_manifest_in_its_container_becomes_networks(name, container, tmp_path):
    _, kind, networks, _ = PUBLISHED[name]
    tensors = read(container(name, tmp_path))
    (checkpoint,) = recognise(tensors, {})
    assert checkpoint.kind == kind and {*checkpoint.networks} == {*networks}
    config = merged(RELEASED, checkpoint.sizes)
    trees = abstract(config, networks)
    converted = Converted(
        tensors, checkpoint.table, trees
    )  # which raises for tensors that are used twice, left over, or of a wrong shape
    assert {path: array.shape for path, array in converted.items()} == {
        path: leaf.shape for path, leaf in flatten(trees).items()
    }
    numbers = {np.ravel(array)[0] for array in converted.values()}
    unused = {key for key, array in small(name).items() if np.ravel(array)[0] not in numbers}
    assert unused == {key for key in tensors if re.fullmatch(IGNORED.get(name, ''), key)}


@pytest.mark.parametrize('name', PUBLISHED)
def test_manifest_at_full_size_is_the_released_model(name):
    _, kind, networks, _ = PUBLISHED[name]
    tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes(name).items()}
    (checkpoint,) = recognise(tensors, {})
    assert checkpoint.kind == kind and merged(RELEASED, checkpoint.sizes) == RELEASED
    Converted(tensors, checkpoint.table, abstract(RELEASED, networks))
