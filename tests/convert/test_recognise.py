"""Words that wrappers put into the names of tensors are left out where a whole part has them, and nowhere else."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from st2v_jax.convert.check import check
from st2v_jax.convert.recognise import kinds, unwrapped
from st2v_jax.open_model import open_model

VAE = {'encoder.conv_in.weight': 1, 'decoder.up_blocks.0.resnets.0.conv1.weight': 2, 'post_quant_conv.weight': 3}


@pytest.mark.parametrize(
    'before',
    [
        *('module.', '_orig_mod.', '_forward_module.', '_fsdp_wrapped_module.', '_checkpoint_wrapped_module.'),
        *('model.', 'ema.', 'ema_model.', 'net.', 'network.', 'state_dict.', 'model_state_dict.'),
        *('module._orig_mod.', '_orig_mod.module.', 'state_dict.model.module.', 'ema.module._orig_mod.'),
    ],
)
def test_what_all_names_begin_with_is_left_out(before):
    assert dict(unwrapped({before + name: value for name, value in VAE.items()})) == VAE


def test_parts_are_wrapped_one_by_one():
    wrapped = {
        'encoder._orig_mod.conv_in.weight': 1,
        'decoder.up_blocks._checkpoint_wrapped_module.0._fsdp_wrapped_module.resnets.0.conv1.weight': 2,
        'post_quant_conv.weight': 3,
    }
    assert dict(unwrapped(wrapped)) == VAE


@pytest.mark.parametrize(
    'tensors',
    [
        VAE,
        VAE | {'module.extra': 4},
        {'module.encoder.conv_in.weight': 1, 'decoder.up_blocks.0.resnets.0.conv1.weight': 2},
        {'encoder.model.a': 1},
        {'module': 1},
        {},
    ],
    ids=['plain', 'one more', 'half', 'a holder inside', 'a tensor of that name', 'nothing'],
)
def test_other_names_stay(tensors):
    assert unwrapped(tensors) is tensors


def test_a_file_of_nothing_known_keeps_its_names():
    tensors = {'module.a': 1, 'module.b': 2}
    assert unwrapped(tensors) is tensors and kinds(tensors) == []


def test_wrapped_files_are_read_by_every_reader(exported, tmp_path):
    plain = load_file(exported / 'vae' / 'diffusion_pytorch_model.safetensors')
    (tmp_path / 'vae').mkdir()
    (tmp_path / 'vae' / 'config.json').write_bytes((exported / 'vae' / 'config.json').read_bytes())
    save_file({f'module._orig_mod.{n}': a for n, a in plain.items()}, tmp_path / 'vae' / 'model.safetensors')
    report = check([tmp_path / 'vae'])
    assert report.problems() == {('network', 'missing'): 5} and report.files[0].kinds == ['autoencoder']
    expected = open_model(exported / 'vae').params(['vae'])
    np.testing.assert_equal(open_model(tmp_path / 'vae').params(['vae']), expected)
