"""Captions describe scenes in few words and in many ways."""

import re

import jax
import numpy as np
import pytest

from st2v_jax.data import world


@pytest.fixture(scope='module')
def scenes(many):
    return [jax.tree.map(lambda leaf: leaf[i], many) for i in range(3000)]


def test_the_wording_is_fixed_by_scene_and_variant(scenes):
    assert world.caption(scenes[0], 0) == world.caption(scenes[0], 0)
    assert world.caption(world.scene(0, 0), 5) == world.caption(scenes[0], 5)
    assert len({world.caption(scenes[0], variant) for variant in range(100)}) > 20


def test_thousands_of_sentences_of_few_words(scenes):
    captions = {world.caption(scene, variant) for variant, scene in enumerate(scenes)}
    assert len(captions) >= 2000
    assert len(world.words()) < 150
    said = {word for caption in captions for word in re.findall(r'\S+', caption.replace(',', ''))}
    assert said <= set(world.words())
    assert max(len(caption.split()) for caption in captions) < 50  # CLIP reads 77 tokens


def test_a_caption_names_both_objects_with_their_article(scenes):
    for scene in scenes[:500]:
        names, caption = world.describe(scene), world.caption(scene, 3)
        for thing in names['objects']:
            assert re.search(rf'\b{thing["colour"]}\b', caption)
        assert len(re.findall(r'\ban? ', caption)) >= len(names['objects'])
        assert not re.search(r'\ba [aeiou]|\ban [^aeiou]', caption)


def test_no_sentence_is_said_of_different_objects_or_motions(scenes):
    meaning = {}
    for scene in scenes:
        names = world.describe(scene)
        caption = world.caption(scene, 0)
        core = tuple((thing['colour'], thing['shape'], thing['motion']) for thing in names['objects'])
        assert meaning.setdefault(caption, core) == core


def test_some_captions_are_brief(scenes):
    lengths = np.array([len(world.caption(scene, 1).split()) for scene in scenes if scene.count == 1])
    assert 0.08 < (lengths <= 5).mean() < 0.25


def test_examples_use_known_words():
    assert len(world.EXAMPLES) >= 5
    for example in world.EXAMPLES:
        assert set(example.replace(',', '').split()) <= set(world.words())
