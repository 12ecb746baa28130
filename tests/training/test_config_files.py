"""Configs by name, by path, and of a user."""

import shutil
import sys

import pytest
from configs_of import ABLATIONS, CONFIGS, STAGES

from st2v_jax.training.config_files import load_config

MINE = """
from st2v_jax.configs import cam


def get_config(arg):
    config = cam.get_config(arg)
    config.seed = 7
    return config
"""


@pytest.mark.parametrize('stage', STAGES + ABLATIONS)
def test_a_name_is_the_file_of_that_name(stage, tmp_path, monkeypatch):
    by_path, name = load_config(f'{CONFIGS / stage}.py:tiny')
    monkeypatch.chdir(tmp_path)
    config, same = load_config(f'{stage}:tiny')
    assert config == by_path and name == same == f'{stage}-tiny'


def test_a_config_of_ones_own_may_lie_anywhere(tmp_path):
    (tmp_path / 'my.own.py').write_text(MINE)
    config, name = load_config(tmp_path / 'my.own.py:tiny')
    assert (config.seed, config.stage, name) == (7, 'cam', 'my.own-tiny')


def test_a_copied_folder_of_configs_is_read_by_itself(tmp_path):
    folder = shutil.copytree(CONFIGS, tmp_path / 'configs')
    text = (folder / 'cam.py').read_text()
    (folder / 'cam.py').write_text(text.replace('    return config', '    config.seed = 8\n    return config'))
    assert load_config(f'{folder}/no_apm.py:tiny')[0].seed == 8  # of cam, which it imports
    assert load_config('no_apm:tiny')[0].seed == load_config(CONFIGS / 'no_apm.py:tiny')[0].seed == 0


def test_no_package_is_called_configs():
    load_config('no_apm:tiny')
    assert 'configs' not in sys.modules and 'st2v_jax.configs.cam' in sys.modules


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('nothing', 'there is no config nothing: give a file, or one of add_cond, apm, autoencoder, .*video_ldm'),
        ('common', 'there is no config common'),
        ('nothing.py', 'there is no config file nothing.py'),
        (__file__.replace('.py', ''), 'there is no config file .*test_config_files'),
        (CONFIGS.parent / 'README.md', 'a config is a Python file, not .*README.md'),
    ],
)
def test_what_is_no_config_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        load_config(name)
