"""A folder of weights comes back as it was saved, and the error for a wrong one lists everything that is wrong."""

import dataclasses
import json
import shutil
import tracemalloc

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from st2v_jax.errors import WeightsError
from st2v_jax.models import build
from st2v_jax.models.config import ModelConfig
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.trees import flatten
from st2v_jax.weights import folder as ours
from st2v_jax.weights import layout

STREAMING = layout.streaming(ModelConfig())


def test_saved_weights_come_back(tiny_folder, tiny_config, tiny_params):
    model = ours.read(tiny_folder)
    assert model.config == tiny_config
    assert model.held == {*layout.networks(tiny_config)}
    arrays = model.arrays(model.held)
    assert arrays.keys() == model.held
    for name in arrays:
        expected = flatten(tiny_params[name])
        assert arrays[name].keys() == expected.keys()
        for path, array in arrays[name].items():
            np.testing.assert_array_equal(array, np.float16(expected[path]), f'{name}/{path}')


def test_disk_holds_16_bits_that_the_safetensors_package_reads(tiny_folder):
    stored = load_file(tiny_folder / 'vae.safetensors')
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}


def test_only_some_networks_can_be_read(tiny_folder, tmp_path):
    for name in ('config.json', 'text.safetensors', 'apm.safetensors'):
        shutil.copy(tiny_folder / name, tmp_path)
    model = ours.read(tmp_path)
    assert model.held == {'text', 'apm'} and model.arrays(('text', 'apm')).keys() == {'text', 'apm'}
    with pytest.raises(WeightsError, match=r'vae.safetensors: missing\n.*image.safetensors: missing'):
        model.arrays(STREAMING)
    with pytest.raises(ValueError, match='no such network: lora'):
        model.arrays(('lora',))


@pytest.mark.parametrize('size', ['tiny', 'full'])
def test_a_config_comes_back(size, tiny_config, tmp_path):
    config = tiny_config if size == 'tiny' else build.ModelConfig()
    ours.save(tmp_path, config, {})
    assert ours.read(tmp_path).config == config


def test_a_second_save_adds_its_networks_and_leaves_nothing_else(tiny_config, tiny_params, tmp_path):
    ours.save(tmp_path / 'new', tiny_config, {'vae': tiny_params['vae']})
    ours.save(tmp_path / 'new', tiny_config, {'text': tiny_params['text']})
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
        ours.read(folder).arrays(STREAMING)
    message = str(error.value)
    assert f'vae/{lost}: missing' in message
    assert 'vae/extra/kernel: the model has no such parameter' in message
    assert f'unet/{wrong}: shape (7, 7), the config needs' in message


def test_config_keys_are_strict(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / 'bad')
    settings = json.loads((folder / 'config.json').read_text())
    settings['colour'] = settings.pop('frames')
    (folder / 'config.json').write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r'config\.json: .*colour.*frames'):
        ours.read(folder)


@pytest.mark.parametrize('text', ['{', '[]', '', '{"frames": 1, "frames": 2}', '{"frames": {}}'])
def test_broken_config_is_one_error(text, tmp_path):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(WeightsError, match=r'config\.json'):
        ours.read(tmp_path)


def test_truncated_file_is_named(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / 'bad')
    blob = (folder / 'cam.safetensors').read_bytes()
    (folder / 'cam.safetensors').write_bytes(blob[: len(blob) // 2])
    with pytest.raises(WeightsError, match=r'cam\.safetensors: .*cut short'):
        ours.read(folder).arrays(STREAMING)


def test_what_is_not_ours_is_named(tmp_path):
    with pytest.raises(WeightsError, match='no folder of weights .*nowhere'):
        ours.read(tmp_path / 'nowhere')
    for settings in (None, {'model_type': 'clip_text_model'}):
        if settings is not None:
            (tmp_path / 'config.json').write_text(json.dumps(settings))
        assert not ours.is_ours(tmp_path)
        with pytest.raises(WeightsError, match='there is no config.json of st2v_jax'):
            ours.read(tmp_path)


def test_save_refuses_what_reading_would(tiny_config, tiny_params, tmp_path):
    huge = jax.tree.map(lambda leaf: leaf + 1e6, tiny_params['vae'])
    with pytest.raises(WeightsError, match='not finite as float16') as error:
        ours.save(tmp_path / 'new', tiny_config, {'vae': huge, 'text': {'a': np.zeros(3)}, 'lora': {}})
    assert 'lora: no such network' in str(error.value) and 'text/a: the model has no' in str(error.value)
    assert not (tmp_path / 'new').exists()
    ours.save(tmp_path / 'new', tiny_config, {'vae': huge}, np.float32)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, tiny_params['vae'])
    with pytest.raises(WeightsError, match='not finite as float32'):
        ours.save(tmp_path / 'other', tiny_config, {'vae': broken}, np.float32)
    assert not (tmp_path / 'other').exists()


def test_saving_takes_the_memory_of_one_array(tiny_config, tmp_path):
    """A UNet of 26 MB in float16, whose largest array takes 3 MB in float32."""
    config = dataclasses.replace(tiny_config, backbone=dataclasses.replace(tiny_config.backbone, channels=(128, 192)))
    shapes = layout.abstract(config, ['unet'])
    params = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(1), leaf.shape), shapes)
    largest = max(4 * leaf.size for leaf in jax.tree.leaves(shapes))
    ours.save(tmp_path / 'warm', config, {})
    tracemalloc.start()
    ours.save(tmp_path / 'new', config, params)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * largest < (tmp_path / 'new' / 'unet.safetensors').stat().st_size / 2, (peak, largest)


def test_tokenizer_comes_with_the_text_tower(tiny_folder, tiny_config, tmp_path):
    tokenizer = ours.read(tiny_folder).tokenizer
    assert tokenizer.size == tiny_config.text.vocab_size
    assert 'star' in tokenizer.words and tokenizer.unknown_words('a red elephant') == ['elephant']
    shutil.copy(tiny_folder / 'config.json', tmp_path)
    with pytest.raises(WeightsError, match='rows, its tokenizer 49408'):
        _ = ours.read(tmp_path).tokenizer
    (tmp_path / 'words.json').write_text('{"rows": [1], "words": []}')
    with pytest.raises(WeightsError, match=r"words\.json: KeyError\('pad'\)"):
        _ = ours.read(tmp_path).tokenizer


def test_padding_of_an_imported_tokenizer_is_kept(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, text=dataclasses.replace(tiny_config.text, vocab_size=49408))
    ours.save(tmp_path, config, {}, tokenizer=Tokenizer(pad=0))
    assert ours.read(tmp_path).tokenizer.pad == 0
