"""The survey of long videos: windows, shares, chance, the ground truth measured as if generated, and the page."""

import copy
import json

import jax
import numpy as np
import pytest

from st2v_jax.data import world
from st2v_jax.data.world.captions import PATTERN_WORDS
from st2v_jax.evaluation import checker, model_page, nearest, pictures, survey

pytest.importorskip('cv2')
pytestmark = pytest.mark.usefixtures('unoptimised')
SIZE, FRAMES = 32, 24
LABELS = {'colour': [0, 1, 1], 'shape': [0, 0, 1], 'motion': [1, 1, 1], 'pattern': [0, 1, 1]}


@pytest.fixture(scope='module')
def scenes():
    return survey.unseen_scenes(5, 3)


@pytest.fixture(scope='module')
def results(scenes):
    """The survey of ground-truth videos with an untrained checker, as generate stores it."""
    heads = {name: len(classes) for name, classes in checker.CLASSES.items()}
    untrained = checker.init(jax.random.key(0), heads, (4, 4)), {'size': SIZE}
    found = survey.survey(survey.rendering(scenes[1], range(FRAMES), SIZE), scenes[1], untrained)
    made = dict(
        date='2026-01-02',
        device='cpu',
        jax='0.10',
        dtype='float32',
        command='st2v evaluate generate',
        captions=3,
        frames=FRAMES,
        size=SIZE,
        seed=5,
        settings={'steps': 25},
        seconds=1.0,
    )
    found |= {
        'made': made,
        'checker': {'steps': 7, 'accuracy': {'colour': 0.5}},
        'pictures': [{'file': 'contact-sheet.png', 'title': 'contact sheet', 'text': 'Frames.'}],
    }
    return json.loads(json.dumps(found))


def test_places_are_windows_of_16_frames_around_them():
    windows = survey.windows_of(240)
    assert {place: (w.start, w.stop) for place, w in windows.items()} == {8: (0, 16), 64: (56, 72), 240: (224, 240)}
    assert {place: (w.start, w.stop) for place, w in survey.windows_of(24).items()} == {8: (0, 16), 24: (8, 24)}
    with pytest.raises(ValueError, match='at least 16 frames'):
        survey.windows_of(15)


def test_unseen_scenes_are_held_out_and_show_one_object(scenes):
    indices, found = scenes
    assert len(indices) == 3 and (found.count == 1).all() and jax.vmap(world.held_out)(found).all()
    for i, sentence in enumerate(survey.captions(found)):
        assert world.COLOURS[found.colour[i, 0]] in sentence


def test_ground_truth_equals_itself(results):
    for found in results['places'].values():
        assert found['right']['generated'] == found['right']['truth']
        assert found['motion']['generated'] == found['motion']['truth'] and found['flow_ratio_median'] == 1
        assert found['size']['generated'] == found['size']['truth'] and found['size']['to_truth'] == 1
    assert results['identity']['generated'] == results['identity']['truth']
    assert len(results['videos']) == 3
    for place, found in results['places'].items():
        at = [video['at'][place] for video in results['videos']]
        assert all(numbers['flow'] == 1 and 0 <= numbers['identity'] <= 1.001 for numbers in at)
        for name in ('all', 'colour', 'shape', 'motion', 'pattern'):
            told = [numbers[name] for numbers in at if numbers[name] is not None]
            share = found['right']['generated'][name]
            assert share is None if not told else np.mean(told) == pytest.approx(share)
    assert all(video['at']['8']['identity'] == pytest.approx(1, abs=1e-5) for video in results['videos'])


def test_shares_count_what_is_right():
    labels = {name: np.array(found) for name, found in LABELS.items()}
    believed = {name: np.eye(2)[label] for name, label in labels.items()}
    assert survey.right(believed, labels) == dict.fromkeys((*survey.NAMED, 'all'), 1)
    chance = survey.right_for_others(believed, labels)
    assert chance['colour'] == pytest.approx(1 / 3) and chance['motion'] == 1 and chance['all'] == 0


def test_a_pattern_counts_where_the_caption_tells_it():
    believed = {name: np.eye(2)[found] for name, found in LABELS.items()}
    labels = {name: np.array(found) for name, found in LABELS.items()}
    assert survey.right(believed, labels | {'pattern': np.array([0, -1, 0])})['pattern'] == 0.5
    untold = labels | {'pattern': np.full(3, -1)}
    assert survey.right(believed, untold)['pattern'] is None
    assert survey.right_for_others(believed, untold)['pattern'] is None


def test_what_is_said_is_in_the_captions():
    _, found = survey.unseen_scenes(11, 24)
    told = survey.said(found)['pattern']
    assert (told < 0).any() and (told > 0).any() and (told == 0).any()
    for sentence, number, true in zip(survey.captions(found), told, found.pattern[:, 0]):
        named = [name for name, words in PATTERN_WORDS.items() if set(words) & set(sentence.split())]
        assert named == ([world.PATTERNS[number]] if number > 0 else []) and number in (true, -1)


def test_sizes_are_compared_with_the_truth_and_with_the_beginning():
    first = {'generated': np.array([0.1, 0.2, 0.2]), 'truth': np.array([0.2, 0.2, 0.2])}
    now = {'generated': np.array([0.1, 0.1, 0.1]), 'truth': np.array([0.2, 0.21, 0.2])}
    assert survey.sizes(now, first) == {
        'generated': {'ratio': pytest.approx(0.5), 'kept': pytest.approx(1 / 3)},
        'truth': {'ratio': pytest.approx(1), 'kept': 1},
        'to_truth': pytest.approx(0.5),
    }


def test_a_checker_of_another_size_is_refused(scenes):
    with pytest.raises(ValueError, match='trained on 64 pixels, but the videos have 32'):
        survey.survey(np.zeros((3, 16, SIZE, SIZE, 3), np.uint8), scenes[1], ({}, {'size': 64}))


def test_a_checker_from_before_there_was_a_size_is_refused():
    older = {'heads': dict.fromkeys((*survey.NAMED,))}, {'size': SIZE}
    with pytest.raises(ValueError, match=r'^the checker does not read size; make a new one with st2v evaluate train-'):
        survey.check(older, SIZE)


def test_the_nearest_clip_of_a_training_clip_is_itself():
    index = int(world.split_indices('train', 9, 3, 1)[0])
    clip = survey.rendering(survey.many_scenes(9, np.array([index])), range(150, 166), 64)
    found = nearest.nearest(clip, 9, scenes=8, starts=(0, 150), batch=4)
    assert found['index'] == [index] and found['start'] == [150] and found['distance'][0] < 1


def test_kept_videos_come_back(tmp_path, scenes):
    videos = survey.rendering(scenes[1], range(4), SIZE)
    pictures.keep(tmp_path / 'videos.npz', videos, scenes[0], 5)
    again, indices, seed = pictures.kept(tmp_path / 'videos.npz')
    assert again.shape == videos.shape and (indices == scenes[0]).all() and seed == 5
    assert np.abs(again.astype(int) - videos).mean() < 8


def test_pictures_are_drawn(tmp_path, scenes):
    videos = survey.rendering(scenes[1], range(FRAMES), SIZE)
    found = {'nearest': pictures.nearest_to(videos, scenes[1], 0, 2)}
    drawn = pictures.draw(tmp_path, videos, scenes[1], survey.captions(scenes[1]), (1, 8, 24), found, count=2)
    assert {row['file'] for row in drawn} == {path.name for path in tmp_path.iterdir()} and len(drawn) == 3


def test_the_page_is_a_function_of_the_json(results):
    training = [
        dict(
            stage='cam',
            command='python train.py --config configs/cam.py:small',
            date='2026-01-01',
            devices=1,
            device='cpu',
            steps=1200,
            batch_size=8,
            seconds=61.2,
            last={'step': 1200, 'loss': 0.125},
        )
    ]
    before = copy.deepcopy((results, training))
    page = model_page.page(results, training, 'small-model')
    assert page == model_page.page(*before, 'small-model') and (results, training) == before
    for part in (
        '2026-01-02',
        'loss 0.125',
        'python train.py --config configs/cam.py:small',
        '1,200',
        'frames 1 to 16',
        '![contact sheet](small-model/contact-sheet.png)',
        results['videos'][0]['caption'],
    ):
        assert part in page
    older = copy.deepcopy(results)
    for found in older['places'].values():
        del found['size']
        for shares in found['right'].values():
            del shares['pattern']
    assert '## Size' in page and '| pattern |' in page
    assert '## Size' not in (before_it := model_page.page(older, training)) and '| pattern |' not in before_it
    changed = copy.deepcopy(results)
    changed['identity']['generated'] = 0.1234
    assert '0.123' in model_page.page(changed, training, 'small-model') and '0.123' not in page
