"""A folder of weights comes back as it was saved, and one that does not fit says everything that is wrong with it."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from st2v_jax import weights
from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.tokenizer import Tokenizer


def test_saved_weights_come_back(tiny_folder, tiny_config, tiny_params):
    config, params = weights.load(tiny_folder, weights.networks(tiny_config))
    assert config == tiny_config
    assert set(params) == {*weights.NETWORKS, 'refiner'}
    assert jax.tree.structure(params) == jax.tree.structure({name: tiny_params[name] for name in params})
    for leaf, original in zip(jax.tree.leaves(params), jax.tree.leaves({name: tiny_params[name] for name in params})):
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, np.float32(np.float16(original)))


def test_disk_holds_16_bits(tiny_folder):
    stored = load_file(tiny_folder / 'vae.safetensors')
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}


def test_only_some_networks_can_be_loaded(tiny_folder, tmp_path):
    for name in ('config.json', 'text.safetensors', 'apm.safetensors'):
        shutil.copy(tiny_folder / name, tmp_path)
    assert set(weights.load(tmp_path, only=('text', 'apm'))[1]) == {'text', 'apm'}
    with pytest.raises(WeightsError, match=r'vae.safetensors: missing\n.*image.safetensors: missing'):
        weights.load(tmp_path)
    with pytest.raises(ValueError, match='no such network: lora'):
        weights.load(tmp_path, only=('lora',))


def test_streaming_needs_no_refiner(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / 'streaming')
    (folder / 'refiner.safetensors').unlink()
    assert set(weights.load(folder)[1]) == set(weights.NETWORKS)
    with pytest.raises(WeightsError, match='refiner.safetensors: missing'):
        weights.load(folder, only=('refiner',))


def test_the_released_refiner_has_an_autoencoder_and_a_text_tower_of_its_own(tiny_config):
    released = build.ModelConfig()
    assert weights.refinement(released) == {'refiner': 'refiner', 'vae': 'refiner_vae', 'text': 'refiner_text'}
    trees = weights.abstract(released, ('refiner_vae', 'refiner_text'))
    sizes = {name: build.parameter_count(tree) for name, tree in trees.items()}
    manifests = Path(__file__).parents[1] / 'manifests'
    count = lambda name: json.loads((manifests / f'{name}.json').read_text())['n_elements']
    # the text tower leaves out the last block of open_clip's: it is as large as the streaming stage's
    assert sizes == {'refiner_vae': count('vid2vid_vae_first_stage'), 'refiner_text': count('ms17b_text_encoder')}

    assert weights.refinement(tiny_config) == {'refiner': 'refiner', 'vae': 'vae', 'text': 'text'}
    assert tiny_config.for_refinement.scale_factor == tiny_config.scale_factor
    with pytest.raises(ValueError, match='no such network: refiner_vae'):
        weights.abstract(tiny_config, ('refiner_vae',))


@pytest.mark.parametrize('size', ['tiny', 'released'])
def test_a_config_comes_back(size, tiny_config, tmp_path):
    config = tiny_config if size == 'tiny' else build.ModelConfig()
    weights.save(tmp_path, config, {})
    assert weights.load_config(tmp_path) == config


def test_a_second_save_adds_its_networks_and_leaves_nothing_else(tiny_config, tiny_params, tmp_path):
    weights.save(tmp_path / 'new', tiny_config, {'vae': tiny_params['vae']})
    weights.save(tmp_path / 'new', tiny_config, {'text': tiny_params['text']})
    names = {file.name for file in (tmp_path / 'new').iterdir()}
    assert names == {'config.json', 'vae.safetensors', 'text.safetensors'}


def test_every_misfit_is_in_one_error(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / 'bad')
    vae, unet = load_file(folder / 'vae.safetensors'), load_file(folder / 'unet.safetensors')
    lost, wrong = list(vae)[0], list(unet)[-1]
    vae['extra/kernel'] = vae.pop(lost)
    unet[wrong] = np.zeros((7, 7), np.float16)
    save_file(vae, folder / 'vae.safetensors')
    save_file(unet, folder / 'unet.safetensors')
    with pytest.raises(WeightsError) as error:
        weights.load(folder)
    message = str(error.value)
    assert f'vae/{lost}: missing' in message
    assert 'vae/extra/kernel: the model has no such parameter' in message
    assert f'unet/{wrong}: shape (7, 7), the config wants' in message


def test_config_keys_are_strict(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / 'bad')
    settings = json.loads((folder / 'config.json').read_text())
    settings['colour'] = settings.pop('frames')
    (folder / 'config.json').write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r'config\.json: .*colour.*frames'):
        weights.load_config(folder)


@pytest.mark.parametrize('text', ['{', '[]', ''])
def test_broken_config_is_one_error(text, tmp_path):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(WeightsError, match=r'config\.json'):
        weights.load(tmp_path)


def test_truncated_file_is_named(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / 'bad')
    blob = (folder / 'cam.safetensors').read_bytes()
    (folder / 'cam.safetensors').write_bytes(blob[: len(blob) // 2])
    with pytest.raises(WeightsError, match=r'cam\.safetensors: .*cut short'):
        weights.load(folder)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(WeightsError, match='no folder of weights .*nowhere'):
        weights.load(tmp_path / 'nowhere')


def test_save_refuses_what_load_would(tiny_config, tiny_params, tmp_path):
    huge = jax.tree.map(lambda leaf: leaf + 1e6, tiny_params['vae'])
    with pytest.raises(WeightsError, match='not finite as float16') as error:
        weights.save(tmp_path / 'new', tiny_config, {'vae': huge, 'text': {'a': np.zeros(3)}, 'lora': {}})
    assert 'lora: no such network' in str(error.value) and 'text/a: the model has no' in str(error.value)
    assert not (tmp_path / 'new').exists()


def test_tokenizer_comes_with_the_text_tower(tiny_folder, tiny_config, tmp_path):
    tokenizer = weights.load_tokenizer(tiny_folder)
    assert tokenizer.size == tiny_config.text.vocab_size
    assert 'star' in tokenizer.words and tokenizer.unknown_words('a red elephant') == ['elephant']
    shutil.copy(tiny_folder / 'config.json', tmp_path)
    with pytest.raises(WeightsError, match='rows, its tokenizer 49408'):
        weights.load_tokenizer(tmp_path)


def test_padding_of_an_imported_tokenizer_is_kept(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, text=dataclasses.replace(tiny_config.text, vocab_size=49408))
    weights.save(tmp_path, config, {}, tokenizer=Tokenizer(pad=0))
    assert weights.load_tokenizer(tmp_path).pad == 0
