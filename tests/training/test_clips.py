"""Training on real clips: what a step sees of them, and a run from videos to weights."""

import itertools
import re
import shlex
import shutil

import jax
import numpy as np
import pytest
from configs_of import CONFIGS, stage_config
from data.videos import scene, write_folder

from st2v_jax import sharding
from st2v_jax.cli.run import main
from st2v_jax.data import caption_tokens
from st2v_jax.data.sources import ClipInMemory
from st2v_jax.models import build
from st2v_jax.open_model import load_weights
from st2v_jax.training import clips
from st2v_jax.video_io import to_floats
from st2v_jax.weights.folder import save

pytestmark = [
    pytest.mark.usefixtures('unoptimised'),
    pytest.mark.filterwarnings('ignore::DeprecationWarning'),  # from orbax and tensorboardX
]

CAM = f'{CONFIGS / "cam"}.py:tiny'
WEIGHTS = 'runs/video_ldm/weights'


class Numbers:
    """A tokenizer of captions that are numbers."""

    def ids(self, captions):
        return np.array([[int(caption or 0)] * 77 for caption in captions], np.int32)


def numbered(length, size=4):
    return ClipInMemory(
        np.arange(length, dtype=np.uint8)[:, None, None, None] * np.ones((1, size, size, 3), np.uint8), '7'
    )


def test_a_step_sees_successive_frames_and_an_anchor_of_the_chunk_before():
    random, firsts, anchors = np.random.default_rng(0), set(), set()
    for _ in range(300):
        read = clips.cut(numbered(10), random, frames=4, shown=4, anchored=True, size=(4, 4), tokenizer=Numbers())
        shown = read.pixels[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(np.diff(shown), 1)
        firsts.add(int(shown[0]))
        anchors.add(int(shown[0]) - int(read.anchor[0, 0, 0]))
        assert read.ids.tolist() == [7] * 77
    assert firsts == {4, 5, 6} and anchors == {1, 2, 3, 4}
    plain = clips.cut(numbered(4), random, frames=4, shown=4, anchored=False, size=(2, 2), tokenizer=Numbers())
    assert plain.anchor is None and plain.pixels.shape == (4, 2, 2, 3)
    with pytest.raises(ValueError, match='clips of 7 frames are too short: this stage needs 8'):
        clips.cut(numbered(7), random, frames=4, shown=4, anchored=True, size=(4, 4), tokenizer=Numbers())


def documented(command, option=''):
    """The arguments of the first such command in docs/training.md that has the option."""
    page = (CONFIGS.parent / 'docs' / 'training.md').read_text('utf-8')
    return shlex.split(re.search(rf'^{re.escape(command)} (.*{re.escape(option)}.*)', page, re.M)[1])


def placed(command, folder):
    """A documented command with its folders in `folder` and its config at the tiny size."""
    ours = {
        'videos/': folder / 'videos',
        'clips/': folder / 'clips',
        '--config.data.source=clips/': f'--config.data.source={folder / "clips"}',
        'configs/cam.py': CAM,
    }
    return [str(ours.get(word, word)) for word in command]


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Clips of 16 frames: the path of a folder of them, and the weights of a tiny Video-LDM."""
    folder = tmp_path_factory.mktemp('films')
    write_folder(folder / 'videos')
    command = placed(documented('st2v prepare-data'), folder)
    assert main(['prepare-data', *command, '--fps', '12', '--size', '16', '--workers', '1', '--quiet']) == 0
    model = build.ModelConfig.from_dict(stage_config('cam').model.to_dict())
    doors = {'vae': build.vae, 'text': build.text_tower, 'image': build.image_tower}
    params = {name: build.init(jax.random.key(1), door(model)) for name, door in doors.items()}
    params['unet'] = build.init(jax.random.key(2), build.denoiser(model))['unet']
    (folder / 'runs' / 'video_ldm').mkdir(parents=True)
    save(folder / WEIGHTS, model, params, tokenizer=caption_tokens.tokenizer_for(model.text.vocab_size))
    return folder


@pytest.mark.parametrize('devices', [1, 4])
def test_a_resumed_step_reads_the_batch_that_it_would_have_read(made, devices):
    config = stage_config('cam', **{'data.source': str(made / 'clips')})
    model = build.ModelConfig.from_dict(config.model.to_dict())
    mesh = sharding.make_mesh({'data': -1}, jax.devices()[:devices])
    start, spared = clips.feed(
        config, model, {}, caption_tokens.tokenizer_for(model.text.vocab_size), mesh, {'vae', 'text'}
    )
    assert not spared  # nothing was encoded beforehand
    whole = [next(steps).videos for steps in [start(0)] for _ in range(4)]
    assert whole[0].pixels.shape == (8, 16, 16, 16, 3) and whole[0].pixels.dtype == np.uint8
    assert whole[0].pixels.sharding.is_equivalent_to(sharding.split_rows(mesh), 5)
    jax.tree.map(np.testing.assert_array_equal, next(start(3)).videos, whole[3])
    assert (np.asarray(whole[0].pixels) != np.asarray(whole[1].pixels)).any()


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # about processes that start in a program with threads
def test_clips_read_in_processes_are_the_same(made):
    model = build.ModelConfig.from_dict(stage_config('cam').model.to_dict())
    mesh, tokenizer = sharding.make_mesh({'data': -1}), caption_tokens.tokenizer_for(model.text.vocab_size)
    batches = []
    for workers in ('0', '2'):
        config = stage_config('cam', **{'data.source': str(made / 'clips'), 'data.workers': workers})
        batches.append(list(itertools.islice(clips.feed(config, model, {}, tokenizer, mesh, ())[0](1), 3)))
    jax.tree.map(np.testing.assert_array_equal, *batches)


def test_conditions_are_the_clips_own_pixels():
    pixels = np.stack([scene(i, 20)[:16, :16, :16] for i in range(2)])
    read = clips.Clips(pixels, np.ones((2, 77), np.int32), pixels[:, 3])
    config = stage_config('apm')
    model = build.ModelConfig.from_dict(config.model.to_dict())
    batch = clips.draw(jax.random.key(0), read, config, model)
    np.testing.assert_allclose(batch.frames, pixels[:, : model.memory] / 127.5 - 1, atol=1e-6)
    doors = {'vae': build.vae(model), 'image': build.image_tower(model)}
    params = {name: build.init(jax.random.key(1), door) for name, door in doors.items()}
    encoded = clips.encode(batch, params, model, np.float32)
    assert encoded.latents.shape == (2, *model.latent_shape) and encoded.anchor.shape == (2, model.image.embed_dim)
    one, _ = doors['vae'](params['vae'], to_floats(pixels[1, 5:6]), method='encode')
    np.testing.assert_allclose(encoded.latents[1, 5], one[0] * model.scale_factor, atol=1e-5)


@pytest.fixture
def one_device(monkeypatch):
    """Runs use one device, which compiles faster."""
    mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, 'make_mesh', lambda axes: mesh(axes, jax.devices()[:1]))


def said(capsys, *argv):
    code = main(['train', *map(str, argv)])
    return code, capsys.readouterr().err.strip().split('\n')[-1]


def test_sources_that_are_no_good_are_one_line(made, capsys, tmp_path):
    command = ('--config', CAM, '--from', made / WEIGHTS, '--workdir', tmp_path / 'run')
    for source, message in (
        ('nowhere', 'nowhere is not a folder (there is no nowhere/index.json)'),
        (str(made / 'videos'), 'videos is not finished: run st2v prepare-data again'),
        ('tfds:nothing_such', 'tfds:nothing_such, split train: '),
    ):
        code, line = said(capsys, *command, f'--config.data.source={source}')
        assert code == 2 and message in line, line


@pytest.mark.slow
def test_a_run_on_prepared_videos_is_the_same_in_one_go_and_in_two(made, one_device, capsys, tmp_path):
    """The command of the page, and again from its checkpoint of step 2 of 4: the weights are equal bit for bit."""
    command = [*placed(documented('python train.py', '--config.data.source'), made), '--from', made / WEIGHTS]
    for run in ('one', 'two'):
        code, line = said(capsys, *command, '--workdir', tmp_path / run)
        assert code == 0, line
        if run == 'one':
            shutil.copytree(tmp_path / 'one' / 'checkpoints' / '2', tmp_path / 'two' / 'checkpoints' / '2')
    rows = [(tmp_path / run / 'metrics.jsonl').read_text().splitlines() for run in ('one', 'two')]
    assert [len(lines) for lines in rows] == [2, 1]  # every second step is written
    one, two = (load_weights(tmp_path / run / 'weights', ['cam'])[1] for run in ('one', 'two'))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    start = load_weights(made / WEIGHTS, ['unet', 'vae'])[1]
    end = load_weights(tmp_path / 'one' / 'weights', ['unet', 'vae'])[1]
    jax.tree.map(np.testing.assert_array_equal, start, end)  # frozen


@pytest.mark.slow
def test_the_last_stage_trains_on_clips_of_twice_the_length(made, one_device, capsys, tmp_path):
    apm = ('--config', f'{CONFIGS / "apm"}.py:tiny', '--workdir', tmp_path / 'apm', '--config.steps=1')
    code, line = said(capsys, *apm, '--from', made / WEIGHTS, f'--config.data.source={made / "clips"}')
    assert code == 2 and 'stage apm starts from trained' in line
    model = build.ModelConfig.from_dict(stage_config('cam').model.to_dict())
    _, params = load_weights(made / WEIGHTS, ['vae', 'text', 'image', 'unet'])
    params['cam'] = build.init(jax.random.key(2), build.denoiser(model))['cam']
    save(tmp_path / 'cam', model, params, tokenizer=caption_tokens.tokenizer_for(model.text.vocab_size))
    apm += ('--from', tmp_path / 'cam')
    code, line = said(capsys, *apm, f'--config.data.source={made / "clips"}')
    assert code == 2 and 'clips of 16 frames are too short: this stage needs 32' in line
    assert (
        main(
            [
                'prepare-data',
                '--videos',
                str(made / 'videos'),
                '--output',
                str(tmp_path / 'clips'),
                '--frames',
                '32',
                '--fps',
                '12',
                '--size',
                '24',
                '--workers',
                '1',
                '--quiet',
            ]
        )
        == 0
    )
    code, line = said(capsys, *apm, f'--config.data.source={tmp_path / "clips"}')
    assert code == 0, line


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # tensorflow-datasets warns about itself
def test_a_dataset_of_tensorflow_datasets_is_a_source_by_name(tmp_path):
    from st2v_jax.data.sources import open_source
    from st2v_jax.data.world import builder as world_builder

    world = world_builder.WorldConfig(name='films', videos=3, held_out_videos=1, frames=16, size=32)
    world_builder.World(data_dir=tmp_path, config=world, file_format='array_record').download_and_prepare()
    films = open_source('tfds:world/films', str(tmp_path))
    assert len(films) == 3 and len(films[0]) == 16 and isinstance(films[0].caption, str)
    read = clips.cut(
        films[1],
        np.random.default_rng(0),
        frames=16,
        shown=16,
        anchored=False,
        size=(16, 16),
        tokenizer=caption_tokens.world_tokenizer(),
    )
    assert read.pixels.shape == (16, 16, 16, 3) and (read.ids != 0).all()
    with pytest.raises(ValueError, match='tfds:world/films, split test: '):
        open_source('tfds:world/films', str(tmp_path), 'test')
