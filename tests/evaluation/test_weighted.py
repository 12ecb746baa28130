"""Instruments with weights: the CLIP score, LPIPS and the flow of RAFT, piece by piece as for the whole video."""

import dataclasses

import jax
import numpy as np
import pytest
import torch_files as files

pytest.importorskip('cv2')

from known_videos import noisy, panning  # noqa: E402

from st2v_jax.convert.engine import export  # noqa: E402
from st2v_jax.convert.metric_tables import lpips_table, raft_table  # noqa: E402
from st2v_jax.errors import BadInput  # noqa: E402
from st2v_jax.evaluation import clip_score, lpips_distance, measuring, raft_flow  # noqa: E402
from st2v_jax.evaluation.instruments import View, warp_error  # noqa: E402
from st2v_jax.metrics import mawe  # noqa: E402
from st2v_jax.models import build  # noqa: E402
from st2v_jax.models.clip import preprocess  # noqa: E402
from st2v_jax.models.lpips import Lpips  # noqa: E402
from st2v_jax.models.raft import Raft  # noqa: E402
from st2v_jax.open_model import load_weights, open_model  # noqa: E402
from st2v_jax.video_io import VideoWriter, to_floats  # noqa: E402
from st2v_jax.weights.folder import save  # noqa: E402

pytestmark = pytest.mark.usefixtures('unoptimised')
VIDEO = panning(frames=11, size=32)  # two pieces of a reader


@pytest.fixture(scope='module')
def frames(tmp_path_factory):
    path = tmp_path_factory.mktemp('frames')
    with VideoWriter(f'{path}/', 8, (32, 32)) as video:
        video.write(VIDEO)
    return path


@pytest.mark.slow
def test_the_clip_score_is_the_mean_cosine_with_the_prompt(tiny_folder, frames):
    found = measuring.measure(frames, [clip_score.instrument(tiny_folder, 'float32')], 'a red ball')['measured']['clip']
    config, params = load_weights(tiny_folder, ('text', 'image'))
    ids = open_model(tiny_folder).tokenizer().ids(['a red ball'])
    text = np.asarray(build.text_tower(config)(params['text'], ids, method='embed'))[0]
    images = np.asarray(build.image_tower(config)(params['image'], preprocess(to_floats(VIDEO), 28)))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    scores = 100 * unit(images) @ unit(text)
    np.testing.assert_allclose(found['curves']['clip'], scores, rtol=1e-4)
    assert found['numbers']['clip'] == pytest.approx(scores.mean(), rel=1e-4)
    nearby = (unit(images[:-1]) * unit(images[1:])).sum(-1)
    np.testing.assert_allclose(found['curves']['clip_next'], nearby, rtol=1e-4)


@pytest.mark.slow
def test_more_noise_is_less_alike_to_a_tower_that_nobody_trained(tiny_folder):
    clip = clip_score.instrument(tiny_folder, 'float32')
    still = np.repeat(VIDEO[:1], 8, 0)
    curves = [clip.begin('a red ball')(View(noisy(still, strength), None)) for strength in (0, 4, 8, 16, 32)]
    for name in ('clip_next', 'clip_first'):
        means = [curve[name].mean() for curve in curves]
        assert means == sorted(means, reverse=True) and means[0] == pytest.approx(1) and means[3] > means[4], means


@pytest.mark.slow
def test_lpips_compares_with_the_first_and_with_the_next_frame(frames, tmp_path):
    random, network = np.random.default_rng(0), build.network(Lpips, 'alex')
    grow = lambda leaf: leaf + 0.05 * random.standard_normal(leaf.shape, np.float32)
    params = jax.tree.map(grow, build.init(jax.random.key(0), network))
    params |= {'weights': jax.tree.map(np.abs, params['weights'])}
    tensors = export(params, lpips_table('alex'))
    tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    parts = [
        {name: array for name, array in tensors.items() if name.startswith('lin') == ours} for ours in (False, True)
    ]
    both = [files.checkpoint('zip', tmp_path / f'{i}.pth', part) for i, part in enumerate(parts)]
    found = measuring.measure(frames, [lpips_distance.instrument(*both)], None)['measured']['lpips']['curves']
    distance = lambda a, b: np.asarray(network(params, to_floats(a), to_floats(b)))
    np.testing.assert_allclose(found['lpips_next'], distance(VIDEO[:-1], VIDEO[1:]), rtol=1e-4)
    np.testing.assert_allclose(found['lpips_first'], distance(VIDEO[:1].repeat(11, 0), VIDEO), rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_mawe_has_the_flow_of_each_pair_of_whole_frames(tmp_path):
    network = build.network(Raft)
    params = build.init(jax.random.key(0), network)
    tensors = {name: np.ascontiguousarray(leaf, np.float32) for name, leaf in export(params, raft_table()).items()}
    flow = raft_flow.flow(files.checkpoint('zip', tmp_path / 'raft.pth', tensors))
    video = panning(frames=10, size=136)[:, 3:134, :130]  # sides that are no multiples of 8
    with VideoWriter(f'{tmp_path}/frames/', 8, video.shape[1:3]) as film:
        film.write(video)
    instrument = dataclasses.replace(warp_error(flow), size=None)
    found = measuring.measure(tmp_path / 'frames', [instrument], None)['measured']['mawe']
    assert found['settings']['flow'] == 'RAFT-Large'
    larger = to_floats(np.pad(video, ((0, 0), (0, 5), (0, 6), (0, 0)), 'edge'))
    run = jax.jit(network)
    flows = np.concatenate([run(params, *pair)[:, :131, :130] for pair in zip(larger[:-1, None], larger[1:, None])])
    np.testing.assert_allclose(flow.between(video), flows, atol=1e-3 * np.abs(flows).max())
    assert found['numbers']['mawe'] == pytest.approx(mawe.mawe(video, flow.between(video)), rel=1e-3)


@pytest.mark.parametrize(
    ('change', 'words'),
    [({'text': 'embed_dim'}, 'the text tower of .* projects to none'), ({'image': None}, 'has no image')],
)
def test_weights_without_both_towers_of_one_clip_are_refused(change, words, tiny_config, tiny_params, tmp_path):
    from tiny import WORDS

    from st2v_jax.tokenizer import Tokenizer

    config, params = tiny_config, dict(tiny_params)
    if 'text' in change:
        config = dataclasses.replace(config, text=dataclasses.replace(config.text, embed_dim=None))
        params['text'] = {name: leaf for name, leaf in params['text'].items() if name != 'projection'}
    else:
        del params['image']
    save(tmp_path / 'w', config, params, tokenizer=Tokenizer.for_words(WORDS))
    with pytest.raises(BadInput, match=words):
        clip_score.instrument(tmp_path / 'w')
