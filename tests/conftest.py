"""Tests run on eight simulated CPU devices; they and the programs that they start share one compilation cache."""

import os
import signal
from pathlib import Path

# Tests and the programs that they start must react to signals, even if this one runs in the background, or under nohup,
# and ignores them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
EIGHT_DEVICES = '--xla_force_host_platform_device_count=8'
if EIGHT_DEVICES not in os.environ.get(
    'XLA_FLAGS', ''
):  # workers of pytest-xdist inherit the environment of their parent
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {EIGHT_DEVICES}'.strip()
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(Path(__file__).parents[1] / '.jax_cache'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

SLOW_SECONDS = 900  # a slow test's own limit


WORKER_MEMORY = 4 * 2**30  # bytes that a process of tests may take


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers(config):
    """As many processes as there are cores, as far as memory goes."""
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') if hasattr(os, 'sysconf') else WORKER_MEMORY
    return max(1, min(os.cpu_count() or 1, memory // WORKER_MEMORY))


def pytest_collection_modifyitems(items):
    """Slow tests get a limit of their own. Their files come first, so that no process is left with one at the end."""
    slow = [item for item in items if item.get_closest_marker('slow')]
    for item in slow:
        item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
    files = {item.path for item in slow}
    items.sort(key=lambda item: item.path not in files)


@pytest.fixture(scope='session')
def tiny_config():
    from tiny import tiny

    return tiny()


@pytest.fixture(scope='session')
def tiny_params(tiny_config):
    """Random parameters of all networks of `tiny_config`, even those that start at zero, so that all have an effect."""
    from st2v_jax.models import build

    doors = {'vae': build.vae, 'text': build.text_tower, 'image': build.image_tower, 'refiner': build.refiner}
    key = jax.random.key(0)
    params = {name: build.init(key, door(tiny_config)) for name, door in doors.items()}
    params |= build.init(key, build.denoiser(tiny_config))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape, np.float32), params)


@pytest.fixture(scope='session')
def tiny_folder(tiny_config, tiny_params, tmp_path_factory):
    """The tiny model as a folder that `sample.py --weights` reads. Shared: do not write into it."""
    from tiny import WORDS

    from st2v_jax.tokenizer import Tokenizer
    from st2v_jax.weights.folder import save

    folder = tmp_path_factory.mktemp('weights') / 'tiny'
    save(folder, tiny_config, tiny_params, tokenizer=Tokenizer.for_words(WORDS))
    return folder


@pytest.fixture(scope='session')
def exported(tiny_folder, tmp_path_factory):
    """The tiny model under the published names. Shared: do not write into it."""
    from st2v_jax.convert.to_diffusers import export

    folder = tmp_path_factory.mktemp('published') / 'exported'
    export(tiny_folder, folder)
    return folder


@pytest.fixture(scope='session')
def bucket():
    """The address of a bucket on loopback. Clients keep its server, so there is one for all tests, with own folders."""
    from bucket_server import serve

    with serve() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield 'gs://bucket'


@pytest.fixture(scope='module')
def unoptimised():
    """Compiles programs without most optimisations, in two thirds of the time, for tests that run them a few times.

    On a CPU only. It applies until the end of the test file, and to the processes that its tests start.
    """
    if jax.default_backend() != 'cpu':
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
        jax.config.update('jax_disable_most_optimizations', True)
        yield
        jax.config.update('jax_disable_most_optimizations', False)
        jax.clear_caches()  # later files must not use programs compiled like this, which round differently
