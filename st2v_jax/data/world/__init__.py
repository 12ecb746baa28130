"""A small world to learn from: captioned long videos, computed from (seed, index), endless and reproducible.

    scene = world.scene(seed, index)                     # what the video shows
    frames = world.render(scene, np.arange(48), 128)     # [48, 128, 128, 3] in [-1, 1]
    prompt = world.caption(scene, variant)               # one of many sentences that describe it
    truth = world.truth(scene, np.arange(48), 128)       # where everything is

A frame depends only on the seed, the index of its scene and its own number.
"""

from st2v_jax.data.examples import EXAMPLES
from st2v_jax.data.world.attributes import BACKGROUNDS, CAMERAS, COLOURS, MOTIONS, PATTERNS, SHAPES
from st2v_jax.data.world.captions import caption, is_brief, words
from st2v_jax.data.world.render import render, truth
from st2v_jax.data.world.scene import SPLITS, Scene, describe, held_out, scene, split_indices

__all__ = [
    'BACKGROUNDS',
    'CAMERAS',
    'COLOURS',
    'EXAMPLES',
    'MOTIONS',
    'PATTERNS',
    'SHAPES',
    'SPLITS',
    'Scene',
    'caption',
    'describe',
    'held_out',
    'is_brief',
    'render',
    'scene',
    'split_indices',
    'truth',
    'words',
]
