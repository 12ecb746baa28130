"""A bucket of Google Cloud Storage is used like a folder; what is sent there appears whole."""

import jax
import numpy as np
import pytest

from st2v_jax import checkpoint
from st2v_jax.data import clips
from st2v_jax.errors import OutputError, WeightsError
from st2v_jax.open_model import load_weights, open_model
from st2v_jax.storage import atomic, buckets
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_folder
from st2v_jax.weights.folder import save

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::ResourceWarning')  # from the clients


def names(folder):
    return sorted(path.name for path in buckets.located(folder).iterdir())


def test_a_file_appears_whole_or_not_at_all(bucket):
    file = buckets.located(bucket) / 'whole' / 'a.txt'
    check_folder(file.parent)
    atomic.write_bytes(file, b'old')
    with pytest.raises(ZeroDivisionError), atomic.replacing(file) as part:
        part.write(b'half of the n')
        raise ZeroDivisionError
    assert file.read_bytes() == b'old'
    atomic.write_bytes(file, b'new')
    assert file.read_bytes() == b'new' and names(file.parent) == ['a.txt']


def test_lines_are_appended(bucket):
    file = buckets.located(bucket) / 'metrics.jsonl'
    for line in ('one', 'two', 'drei: ü'):
        atomic.append_line(file, line)
    assert file.read_text() == 'one\ntwo\ndrei: ü\n'


def test_there_are_no_locks(bucket):
    with locked(f'{bucket}/run'), locked(f'{bucket}/run'):
        pass
    assert not buckets.located(f'{bucket}/run').exists()


def test_a_video_made_here_is_sent(bucket):
    path = buckets.located(bucket) / 'previews' / 'step-1.mp4'
    with buckets.made_here(path) as file:
        assert file.name == 'step-1.mp4'
        file.write_bytes(b'video')
    assert path.read_bytes() == b'video' and not file.exists()


def test_weights_come_back(bucket, tiny_config, tiny_params, tiny_folder):
    save(f'{bucket}/weights', tiny_config, tiny_params)
    config, params = load_weights(f'{bucket}/weights', tiny_params)
    here, expected = load_weights(tiny_folder, tiny_params)
    assert config == here and names(f'{bucket}/weights') == sorted(
        ['config.json', *(f'{name}.safetensors' for name in tiny_params)]
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize('address', ['gs://bucket/nothing', 'gs://no-such-bucket/weights'])
def test_where_there_are_no_weights_is_one_line(bucket, address):
    with pytest.raises(WeightsError, match=f'^{address} is not a folder of weights that st2v_jax wrote'):
        open_model(address)


def test_a_bucket_that_is_not_there_is_one_line(bucket):
    with pytest.raises(OutputError, match='^cannot write gs://no-such-bucket/run'):
        check_folder('gs://no-such-bucket/run')


def test_without_its_client_an_address_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(buckets.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(
        OutputError, match=r"^cannot write gs://bucket/run: gcsfs is not .*: pip install 'st2v_jax\[gcs\]'"
    ):
        check_folder('gs://bucket/run')


def test_clips_are_read_from_a_bucket(bucket, tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    writer = ArrayRecordWriter(str(tmp_path / '00000.array_record'), 'group_size:1')
    for number in range(2):
        writer.write(clips.record(frames, f'clip {number}', 'boat.mp4', 0.0))
    writer.close()
    folder = buckets.located(bucket) / 'clips'
    with pytest.raises(ValueError, match='gs://bucket/clips is not'):
        clips.Folder(folder)
    buckets.write(folder / '00000.array_record', (tmp_path / '00000.array_record').read_bytes())
    clips.write_json(folder / clips.INDEX, {'settings': {}, 'samples': 2, 'shards': {'00000.array_record': 2}})
    found = clips.Folder(folder)
    assert len(found) == 2 and found[1].caption == 'clip 1'
    assert found[1].frames(range(3)).shape == (3, 16, 16, 3)


STATE = {'kernel': np.arange(4096.0), 'bias': np.float32(1)}
ABSTRACT = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype), STATE)


def test_the_newest_checkpoint_that_is_complete_is_restored(bucket):
    folder, said = buckets.located(bucket) / 'checkpoints', []
    checkpoints = checkpoint.Checkpoints(folder)
    assert checkpoints.latest() is None
    for step, progress in ((2, 0.2), (4, 0.4), (6, 0.6), (8, 0.8)):
        checkpoints.save(step, STATE, progress)
    checkpoints.close()
    assert names(folder) == ['6', '8']  # of the older ones nothing is left
    (folder / '8' / 'commit_success.txt').unlink()  # as a killed run leaves it
    checkpoints = checkpoint.Checkpoints(folder)
    assert checkpoints.latest() == 6
    state, progress = checkpoints.restore(ABSTRACT, said.append)
    assert progress == 0.6 and not said
    jax.tree.map(np.testing.assert_array_equal, state, STATE)
    checkpoints.save(8, STATE, 0.8)
    checkpoints.close()
    for path in (folder / '8' / 'default' / 'd').iterdir():
        path.write_bytes(path.read_bytes()[:10])
    checkpoints = checkpoint.Checkpoints(folder)
    assert checkpoints.restore(ABSTRACT, said.append)[1] == 0.6
    assert len(said) == 1 and said[0].endswith(f'kept as {folder / "8.damaged"}; going on from step 6')
    assert names(folder) == ['6', '8.damaged']
    checkpoints.close()
