"""What a run starts from: a stage's own networks are new, those of earlier stages come from the first source."""

import shutil

import huggingface_hub
import jax
import numpy as np
import pytest
from configs_of import ABLATIONS, CONFIGS, STAGES, stage_config

from st2v_jax import sharding, trees
from st2v_jax.cli.run import main
from st2v_jax.data import caption_tokens
from st2v_jax.models import build
from st2v_jax.open_model import SHIPPED, open_model
from st2v_jax.training import init, loop, pools
from st2v_jax.training.config_files import load_config
from st2v_jax.weights import layout
from st2v_jax.weights.folder import save

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')  # from orbax and tensorboardX

KEY = jax.random.key(7)
MODEL = build.ModelConfig.from_dict(stage_config('apm').model.to_dict())
OWN = {  # the networks that a stage trains first
    'autoencoder': {'vae'},
    'clip': {'text', 'image'},
    'video_ldm': {'unet'},
    'cam': {'cam'},
    'apm': {'apm'},
    'refiner_vae': {'refiner_vae'},
    'refiner': {'refiner'},
    **dict.fromkeys(ABLATIONS, {'cam'}),
}


def networks(seed, *names):
    """Random networks, also where training starts at zero."""
    random = np.random.default_rng(seed)
    fresh = init.born(MODEL, names or layout.networks(MODEL), jax.random.key(seed))
    return jax.tree.map(lambda leaf: np.float16(leaf + 0.1 * random.standard_normal(leaf.shape)), fresh)


def write(folder, params):
    save(folder, MODEL, params, tokenizer=caption_tokens.tokenizer_for(MODEL.text.vocab_size))
    return folder


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A folder with all networks, trained: (its path, their parameters)."""
    params = networks(1)
    return write(tmp_path_factory.mktemp('init') / 'whole', params), params


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))


@pytest.mark.parametrize('stage', STAGES + ABLATIONS)
def test_a_stage_takes_what_comes_before_it_and_not_its_own(stage, whole):
    config = stage_config(stage)
    _, params, _, origin = init.start(config, KEY, whole[0])
    assert not OWN[stage] & {*params}
    assert {*config.init.networks} <= {*params} <= {*config.init.networks, *config.init.carried}
    assert all(same(params[name], whole[1][name]) for name in params)
    assert origin == f'{", ".join(params) or "nothing"} from {whole[0]}'


@pytest.mark.parametrize('stage', STAGES)
def test_a_stage_that_continues_takes_all_that_there_is(stage, whole):
    config = stage_config(stage, **{'init.continued': 'True'})
    assert same(init.start(config, KEY, whole[0]).params, whole[1])


@pytest.mark.parametrize('stage, own', [('video_ldm', 'unet'), ('cam', 'cam'), ('apm', 'apm')])
def test_a_stages_own_network_is_born_where_a_trained_one_lies_beside(stage, own, whole, monkeypatch):
    monkeypatch.setattr(pools, 'make_data', lambda *args: None)  # takes time and is not needed
    config, mesh = stage_config(stage), sharding.make_mesh({'data': -1})
    model, params, tokenizer, _ = init.start(config, KEY, whole[0])
    objective = loop.OBJECTIVES[config.objective](config, model, params, tokenizer, mesh, KEY)
    fresh = build.init(KEY, build.denoiser(model))[own]
    if stage == 'cam':
        fresh = {**fresh, 'extractor': whole[1]['unet']['encoder']}
    assert same(objective.params[own], fresh) and not same(objective.params[own], whole[1][own])


def test_without_sources_all_is_fresh():
    params = init.start(stage_config('apm'), KEY).params
    assert {*params} == {'vae', 'text', 'image', 'unet', 'cam'}
    assert same(params['cam']['extractor'], params['unet']['encoder'])  # as the stage cam left it


@pytest.mark.parametrize(
    'stage, sources',
    [
        ('autoencoder', ()),
        ('clip', ('runs/autoencoder/weights',)),
        ('video_ldm', ('runs/clip/weights', 'damo-vilab/text-to-video-ms-1.7b')),
        *((stage, ('runs/video_ldm/weights', 'damo-vilab/text-to-video-ms-1.7b')) for stage in ('cam', *ABLATIONS)),
        ('apm', ('runs/cam/weights', 'PAIR/StreamingT2V')),
        ('refiner_vae', ('runs/apm/weights', 'PAIR/StreamingT2V')),
        ('refiner', ('runs/refiner_vae/weights', 'PAIR/StreamingT2V', 'ali-vilab/MS-Vid2Vid-XL')),
    ],
)
def test_a_stage_looks_at_the_run_before_it_and_then_at_published_or_shipped_weights(stage, sources):
    assert stage_config(stage, '').init.sources == sources
    assert stage_config(stage, 'tiny').init.sources == ()
    small = stage_config(stage, 'small').init.sources
    assert small == (tuple(sources[:1]) and (sources[0].replace('/weights', '-small/weights'), str(SHIPPED)))
    # the default folder for the weights of a run
    run = sources and sources[0].split('/')[1]
    assert not run or load_config(CONFIGS / f'{run}.py')[1] == run
    assert not run or load_config(f'{CONFIGS / run}.py:small')[1] == f'{run}-small'


def test_the_run_before_comes_before_published_weights_which_give_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = stage_config('apm')
    with config.unlocked():
        config.init.sources = stage_config('apm', '').init.sources
    published = networks(2, 'vae', 'text', 'image', 'unet', 'cam', 'apm')
    write('PAIR/StreamingT2V', published)
    _, params, _, origin = init.start(config, KEY)
    assert origin == 'vae, text, image, unet, cam from PAIR/StreamingT2V'
    assert all(same(params[name], published[name]) for name in params)
    before = networks(3, 'vae', 'text', 'unet', 'cam')
    write('runs/cam/weights', before)
    _, params, _, origin = init.start(config, KEY)
    assert origin == 'vae, text, unet, cam from runs/cam/weights, image from PAIR/StreamingT2V'
    assert all(same(params[name], before[name]) for name in before) and same(params['image'], published['image'])
    shutil.rmtree('PAIR')  # a source that is not needed may be missing
    write('runs/cam/weights', {'image': published['image']})
    assert init.start(config, KEY).origin == 'vae, text, image, unet, cam from runs/cam/weights'
    (tmp_path / 'runs/cam/weights/unet.safetensors').write_bytes(b'')  # a damaged source is an error
    with pytest.raises(ValueError, match='unet.safetensors is empty: download it again'):
        init.start(config, KEY)


def test_published_files_on_the_hub_are_a_source(whole, tmp_path, monkeypatch, capsys):
    exported = tmp_path / 'exported'
    assert main(['convert', '--from', str(whole[0]), '--to-diffusers', str(exported)]) == 0
    names = [file.relative_to(exported).as_posix() for file in exported.rglob('*') if file.is_file()]
    monkeypatch.setattr(huggingface_hub, 'list_repo_files', lambda repository: names)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda repository, **options: exported)
    monkeypatch.chdir(tmp_path)
    config = stage_config('cam')
    with config.unlocked():
        config.init.sources = stage_config('cam', '').init.sources
    _, params, _, origin = init.start(config, KEY)
    assert origin == 'vae, text, image, unet from damo-vilab/text-to-video-ms-1.7b'
    assert all(same(params[name], whole[1][name]) for name in params)


def test_where_no_source_can_be_had_one_line_names_them_and_the_option(tmp_path, monkeypatch, capsys):
    def unreachable(*args, **options):
        raise ConnectionError('no network')

    monkeypatch.setattr(huggingface_hub, 'list_repo_files', unreachable)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', unreachable)
    monkeypatch.chdir(tmp_path)
    assert main(['train', '--config', str(CONFIGS / 'cam.py')]) == 2  # at full size
    (line,) = capsys.readouterr().err.strip().split('\n')
    for part in (
        'stage cam starts from trained vae, text, unet, but no source has them',
        'runs/video_ldm/weights',
        'damo-vilab/text-to-video-ms-1.7b',
        'give weights that have them with --from',
    ):
        assert part in line
    assert not (tmp_path / 'runs').exists()


def test_weights_that_lack_a_network_are_named_with_what_they_have(whole, tmp_path):
    folder = write(tmp_path / 'some', {name: whole[1][name] for name in ('vae', 'text')})
    with pytest.raises(
        ValueError, match=r'stage cam starts from trained unet, but no source has them \(vae, text from '
    ):
        init.start(stage_config('cam'), KEY, folder)


def test_weights_of_another_model_are_refused(tiny_folder):
    with pytest.raises(ValueError, match=r'belong to another model than the config: .*frame_size is \(32, 32\) there'):
        init.start(stage_config('cam'), KEY, tiny_folder)


@pytest.mark.parametrize('stage', STAGES[1:] + ABLATIONS)
def test_small_stages_start_from_the_weights_that_ship(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, params, tokenizer, origin = init.start(stage_config(stage, 'small'), KEY)
    assert origin.endswith(f' from {SHIPPED}') and {*stage_config(stage, 'small').init.networks} <= {*params}
    shipped = open_model(SHIPPED).config
    assert model.scale_factor == shipped.scale_factor and tokenizer.size == model.text.vocab_size
    assert (model.refiner.scale_factor == shipped.refiner.scale_factor) == (stage == 'refiner')


@pytest.mark.slow
@pytest.mark.parametrize('stage', sorted({file.stem for file in CONFIGS.glob('*.py')} - {'__init__', 'common'}))
def test_every_config_trains_at_its_tiny_size_with_no_other_argument(stage, tmp_path, monkeypatch, unoptimised):
    mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, 'make_mesh', lambda axes: mesh(axes, jax.devices()[:1]))
    monkeypatch.chdir(tmp_path)
    assert main(['train', '--config', f'{CONFIGS / stage}.py:tiny']) == 0
    held = open_model(tmp_path / 'runs' / f'{stage}-tiny' / 'weights').held
    assert {*stage_config(stage).init.networks} | OWN[stage] <= held


def test_a_cam_without_codes_continues_as_one_whose_codes_are_zero(tmp_path):
    params = networks(1)
    whole = write(tmp_path / 'weights', params)
    config = stage_config('apm', **{'model.cam.positions': 'True', 'init.continued': 'True'})
    cam = trees.flatten(init.start(config, KEY, whole).params['cam'])
    before = trees.flatten(params['cam'])
    assert all(np.array_equal(cam[path], leaf) for path, leaf in before.items())
    added = [leaf for path, leaf in cam.items() if path not in before]
    assert added and not any(leaf.any() for leaf in added)
