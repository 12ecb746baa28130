"""A built wheel has everything that sampling needs, and works outside the clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from st2v_jax import video_io

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / 'st2v_jax' / 'assets' / 'small'
MEGABYTE = 1_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel built without network, from a copy of the tree because setuptools leaves folders where it builds."""
    folder = tmp_path_factory.mktemp('wheel')
    skip = shutil.ignore_patterns('__pycache__', '*.egg-info')
    for name in ('st2v_jax', 'configs'):
        shutil.copytree(ROOT / name, folder / 'tree' / name, ignore=skip)
    for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE', 'NOTICE'):
        shutil.copy(ROOT / name, folder / 'tree')
    options = ['--quiet', '--no-deps', '--no-build-isolation', '--no-index', '--wheel-dir', folder]
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', *options, folder / 'tree'], check=True)
    (file,) = folder.glob('*.whl')
    return file


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """A folder for the front of PYTHONPATH, with the unpacked wheel and nothing of the clone."""
    folder = tmp_path_factory.mktemp('installed')
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def run(installed, cwd, *arguments):
    """`st2v` of the unpacked wheel, in a folder outside the clone."""
    environment = os.environ | {'PYTHONPATH': str(installed)}
    command = [sys.executable, '-m', 'st2v_jax', *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_wheel_holds_vocabulary_licences_and_commands(wheel):
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (points,) = (packed.read(name).decode() for name in names if name.endswith('entry_points.txt'))
    assert 'st2v_jax/assets/clip_vocabulary/bpe_simple_vocab_16e6.txt.gz' in names
    assert 'st2v_jax/assets/prompts/paper.txt' in names
    assert {'LICENSE', 'NOTICE'} <= {Path(name).name for name in names}
    assert points.split() == ['[console_scripts]', 'st2v', '=', 'st2v_jax.cli.run:main']
    assert not [name for name in names if name.startswith('configs/')], 'no top-level package is called configs'
    assert {f'st2v_jax/configs/{file.name}' for file in (ROOT / 'configs').glob('*.py')} <= set(names)
    assert {'st2v_jax/web/assets/page.js', 'st2v_jax/web/assets/page.css'} <= set(names)
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / 'st2v_jax').rglob('*.py')}
    assert modules <= set(names), 'a package without __init__.py?'


def test_wheel_works_from_another_folder(installed, tiny_folder, tmp_path):
    options = ('--prompt', 'a red ball moves left', '--num-frames', '3', '--steps', '2', '--output', 'ball.mp4')
    done = run(installed, tmp_path, 'sample', *options, '--weights', tiny_folder)
    assert done.returncode == 0, done.stderr
    assert len(video_io.read_video(tmp_path / 'ball.mp4')) == 3


def test_wheel_trains_by_the_name_of_a_config_and_by_a_file_of_ones_own(installed, tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from st2v_jax.configs import autoencoder\n\n\n'
        'def get_config(arg):\n'
        '    config = autoencoder.get_config(arg)\n'
        '    config.steps = 2\n'
        '    return config\n'
    )
    options = ('--config.model.vae.block_channels=(8,)', '--config.checkpoint_every=0')
    for config, workdir in (('autoencoder:tiny', 'runs/autoencoder-tiny'), ('mine.py:tiny', 'runs/mine-tiny')):
        done = run(installed, tmp_path, 'train', '--config', config, *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f'trained weights: {workdir}/weights\n'
        assert (tmp_path / workdir / 'weights' / 'config.json').is_file()


@pytest.mark.skipif(not SHIPPED.is_dir(), reason='no trained weights in the tree yet')
def test_wheel_holds_weights_that_work(wheel, installed, tmp_path):
    files = [file for file in SHIPPED.iterdir() if not file.name.startswith('.')]
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert {f'st2v_jax/assets/small/{file.name}' for file in files} <= names
    refining = [file for file in files if file.name.startswith('refiner')]
    for part, limit in ((refining, 14), (set(files) - set(refining), 28)):
        assert sum(file.stat().st_size for file in part) <= limit * MEGABYTE
    words = run(installed, tmp_path, 'sample', '--list-words')
    assert 'ball' in words.stdout.split(), words.stderr
    options = ('--prompt', 'a red ball bounces over a meadow', '--num-frames', '16', '--steps', '2')
    done = run(installed, tmp_path, 'sample', *options)
    assert done.returncode == 0, done.stderr
    assert 'warning' not in done.stderr
    (file,) = tmp_path.glob('*.mp4')
    assert len(video_io.read_video(file)) == 16
