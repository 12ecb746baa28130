"""Scenes show all attributes, separate the held-out combinations, and always keep objects in view."""

import jax
import numpy as np
import pytest

from st2v_jax.data import world

COMBINATION = ('colour', 'shape', 'motion')
PINNED = [  # if these change, the data of every trained model changes
    {
        'objects': [{'colour': 'yellow', 'shape': 'heart', 'pattern': 'plain', 'motion': 'pulses'}],
        'background': 'lava',
        'camera': 'pans down',
    },
    {
        'objects': [
            {'colour': 'blue', 'shape': 'ring', 'pattern': 'plain', 'motion': 'pulses'},
            {'colour': 'orange', 'shape': 'ball', 'pattern': 'plain', 'motion': 'circles'},
        ],
        'background': 'meadow',
        'camera': 'still',
    },
]
HELD = {
    'red, box, moves left': True,
    'yellow, star, pulses': True,
    'purple, heart, pulses': True,
    'red, ball, moves left': False,
    'yellow, ring, bounces': False,
    'purple, box, rises': False,
}


def test_a_scene_depends_on_seed_and_index_alone(many):
    alone = world.scene(0, 1234)
    for one, row in zip(alone, many):
        np.testing.assert_array_equal(one, row[1234])
    assert int(world.scene(1, 1234).salt) != int(alone.salt)


def test_scenes_are_pinned():
    names = [world.describe(world.scene(0, index)) for index in (0, 1)]
    assert names == PINNED


@pytest.mark.parametrize(
    'name, values',
    [
        ('colour', world.COLOURS),
        ('shape', world.SHAPES),
        ('pattern', world.PATTERNS),
        ('motion', world.MOTIONS),
        ('background', world.BACKGROUNDS),
        ('camera', world.CAMERAS),
        ('count', (0, 1, 2)),
    ],
)
def test_every_value_occurs_in_both_splits(many, name, values):
    held = np.asarray(world.held_out(many))
    wanted = {1, 2} if name == 'count' else set(range(len(values)))
    for split in (held, ~held):
        assert set(np.unique(getattr(many, name)[split]).tolist()) == wanted


def test_a_quarter_of_the_scenes_has_two_objects_of_different_colour_and_shape(many):
    two = many.count == 2
    assert 0.22 < two.mean() < 0.28
    assert (many.colour[two, 0] != many.colour[two, 1]).all()
    assert (many.shape[two, 0] != many.shape[two, 1]).all()


def test_no_object_has_the_colour_of_its_background(many):
    for ground, colour in (('meadow', 'green'), ('ocean', 'blue'), ('desert', 'yellow'), ('lava', 'red')):
        there = many.background == world.BACKGROUNDS.index(ground)
        assert not (many.colour[there] == world.COLOURS.index(colour)).any()


def test_a_spinning_ball_has_a_pattern_that_shows_it(many):
    spinning = (many.motion == world.MOTIONS.index('spins')) & np.isin(many.shape, [0, world.SHAPES.index('ring')])
    assert spinning.any() and (many.pattern[spinning] != 0).all()


def test_a_share_of_combinations_is_held_out_whatever_the_seed(many):
    one = many.count == 1
    held = np.asarray(world.held_out(many))
    assert 0.08 < held[one].mean() < 0.16
    assert 0.10 < held.mean() < 0.20
    of = lambda scenes, rows: set(zip(*(getattr(scenes, name)[rows, 0].tolist() for name in COMBINATION)))
    kept, trained = of(many, held & one), of(many, ~held)
    assert not kept & trained
    other = jax.device_get(jax.vmap(lambda i: world.scene(9, i))(np.arange(500)))
    assert not of(other, ~np.asarray(world.held_out(other))) & kept


def test_held_out_combinations_are_pinned(first_where, many):
    scene = first_where(many.count == 1)
    for names, kept in HELD.items():
        tables = world.COLOURS, world.SHAPES, world.MOTIONS
        ids = (table.index(name) for table, name in zip(tables, names.split(', ')))
        colour, shape, motion = (np.full(2, i, np.int32) for i in ids)
        assert bool(world.held_out(scene._replace(colour=colour, shape=shape, motion=motion))) == kept, names


def test_either_object_can_hold_a_scene_out(first_where, many):
    scene = first_where((many.count == 2) & np.asarray(world.held_out(many)))
    flipped = scene._replace(**{name: getattr(scene, name)[::-1] for name in COMBINATION})
    assert bool(world.held_out(flipped))


def test_splits_partition_the_indices_in_order():
    train, held = (world.split_indices(split, 0, 0, count) for split, count in (('train', 900), ('held_out', 100)))
    assert not set(train) & set(held)
    reach = min(train[-1], held[-1])
    both = np.sort(np.concatenate([train[train <= reach], held[held <= reach]]))
    np.testing.assert_array_equal(both, np.arange(reach + 1))
    np.testing.assert_array_equal(world.split_indices('train', 0, 500, 50), train[500:550])
    with pytest.raises(ValueError, match=r"split is one of train, held_out, not 'test'"):
        world.split_indices('test', 0, 0, 1)


@pytest.mark.parametrize('motion', world.MOTIONS)
def test_objects_stay_in_view_for_1200_frames(many, motion):
    rows = np.flatnonzero((many.motion == world.MOTIONS.index(motion)).any(-1))[:40]
    scenes = jax.tree.map(lambda leaf: leaf[rows], many)
    truth = jax.device_get(jax.vmap(lambda scene: world.truth(scene, np.arange(1200), 128))(scenes))
    shown = truth['visible'][:, None, :]
    edge = np.abs(truth['centres'] - 64).max(-1) + 0.7 * truth['radii']
    assert np.where(shown, edge, 0).max() < 64


def test_two_objects_keep_to_their_halves(many):
    scenes = jax.tree.map(lambda leaf: leaf[many.count == 2][:100], many)
    truth = jax.device_get(jax.vmap(lambda scene: world.truth(scene, np.arange(64), 128))(scenes))
    left, right = truth['centres'][..., 0, 0], truth['centres'][..., 1, 0]
    assert left.max() < 60 and right.min() > 68


@pytest.mark.parametrize('motion', world.MOTIONS[4:])
def test_a_motion_shows_within_16_frames(many, motion):
    rows = np.flatnonzero((many.count == 1) & (many.motion[:, 0] == world.MOTIONS.index(motion)))[:40]
    scenes = jax.tree.map(lambda leaf: leaf[rows], many)
    truth = jax.device_get(jax.vmap(lambda scene: world.truth(scene, np.arange(16), 128))(scenes))
    span = np.ptp(truth['centres'][:, :, 0], axis=1).min(0)
    shown = {
        'bounces': span[1] > 20,
        'circles': span.min() > 16,
        'swings': span[0] > 20,
        'spins': np.ptp(truth['angles'][:, :, 0], axis=1).min() > np.pi,
        'pulses': (truth['radii'][:, :, 0].max(1) / truth['radii'][:, :, 0].min(1)).min() > 1.4,
    }
    assert shown[motion]
