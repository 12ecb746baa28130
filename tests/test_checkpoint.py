"""A checkpoint that is damaged in any way is set aside, and the newest whole one is read."""

import shutil

import jax
import numpy as np
import pytest

from st2v_jax.checkpoint import Checkpoints

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')  # from orbax
STATE = {'kernel': np.arange(4096.0), 'bias': np.float32(1)}
ABSTRACT = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype), STATE)


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run') / 'checkpoints'
    checkpoints = Checkpoints(folder)
    for step, progress in ((4, 0.25), (8, 0.5)):
        checkpoints.save(step, STATE, progress)
    checkpoints.close()
    return folder


def cut(pattern):
    def damage(folder):
        for file in folder.rglob(pattern):
            if file.is_file():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def flipped(folder):
    for file in folder.rglob('d/*'):
        data = bytearray(file.read_bytes())
        middle = slice(len(data) // 2, len(data) // 2 + 64)
        data[middle] = bytes(255 ^ byte for byte in data[middle])
        file.write_bytes(data)


def gutted(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = {
    'empty files': cut('*'),
    'an empty folder': gutted,
    'no data': lambda folder: shutil.rmtree(folder / 'default'),
    'cut data': cut('d/*'),
    'other bytes': flipped,
    'a cut manifest': cut('manifest.ocdbt'),
    'cut metadata': cut('_METADATA'),
    'no metadata': lambda folder: (folder / 'default' / '_METADATA').unlink(),
}


@pytest.mark.parametrize('case', DAMAGE)
def test_the_newest_that_can_be_read_is_restored(case, two, tmp_path, capfd):
    folder = shutil.copytree(two, tmp_path / 'checkpoints')
    DAMAGE[case](folder / '8')
    said, checkpoints = [], Checkpoints(folder)
    state, progress = checkpoints.restore(ABSTRACT, said.append)
    (line,) = said
    assert line.startswith('checkpoint 8 is damaged (') and '\n' not in line and len(line) < 400
    assert line.endswith(f' and kept as {folder / "8.damaged"}; going on from step 4')
    assert capfd.readouterr().err == '' and progress == 0.25
    jax.tree.map(np.testing.assert_array_equal, state, STATE)
    checkpoints.save(8, STATE, 0.75)
    checkpoints.close()
    again = Checkpoints(folder)
    assert again.restore(ABSTRACT, said.append)[1] == 0.75 and len(said) == 1
    assert {one.name for one in folder.iterdir()} == {'4', '8', '8.damaged'}


def test_what_was_set_aside_before_stays(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / 'checkpoints')
    (folder / '8.damaged').mkdir()
    gutted(folder / '8')
    with pytest.warns(UserWarning, match=r'kept as .*8\.damaged-2; going on from step 4'):
        Checkpoints(folder).restore(ABSTRACT)
    assert {one.name for one in folder.iterdir()} == {'4', '8.damaged', '8.damaged-2'}


def test_of_another_model_nothing_is_set_aside(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / 'checkpoints')
    with pytest.raises(ValueError, match='8 cannot be restored .*, nor can those before it'):
        Checkpoints(folder).restore({'other': jax.ShapeDtypeStruct((3,), np.float32)})
    assert {one.name for one in folder.iterdir()} == {'4', '8'}


def test_an_only_checkpoint_is_named(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / 'checkpoints')
    shutil.rmtree(folder / '4')
    gutted(folder / '8')
    with pytest.raises(ValueError, match=r'8 cannot be restored \(.*\); delete it to start again'):
        Checkpoints(folder).restore(ABSTRACT)
