"""The grammar of captions: thousands of plain sentences that describe a scene."""

import re

import jax
import numpy as np

from st2v_jax.data.world.attributes import COLOURS
from st2v_jax.data.world.scene import Scene, describe

SHAPE_WORDS = {
    'ball': ('ball', 'ball', 'sphere'),
    'box': ('box', 'box', 'square'),
    'star': ('star',),
    'triangle': ('triangle',),
    'ring': ('ring', 'ring', 'donut'),
    'heart': ('heart',),
    'cross': ('cross', 'cross', 'plus'),
}
PATTERN_WORDS = {'striped': ('striped', 'stripes'), 'dotted': ('dotted', 'dots'), 'checkered': ('checkered', 'checks')}

# (one does, several do, doing)
MOTION_WORDS = {
    'moves left': (
        ('moves left', 'move left', 'moving left'),
        ('goes left', 'go left', 'going left'),
        ('flies to the left', 'fly to the left', 'flying to the left'),
    ),
    'moves right': (
        ('moves right', 'move right', 'moving right'),
        ('goes right', 'go right', 'going right'),
        ('flies to the right', 'fly to the right', 'flying to the right'),
    ),
    'rises': (('rises', 'rise', 'rising'), ('goes up', 'go up', 'going up'), ('flies up', 'fly up', 'flying up')),
    'falls': (
        ('falls', 'fall', 'falling'),
        ('falls down', 'fall down', 'falling down'),
        ('goes down', 'go down', 'going down'),
    ),
    'bounces': (
        ('bounces', 'bounce', 'bouncing'),
        ('hops', 'hop', 'hopping'),
        ('bounces up and down', 'bounce up and down', 'bouncing up and down'),
    ),
    'circles': (
        ('moves in circles', 'move in circles', 'moving in circles'),
        ('circles', 'circle', 'circling'),
        ('goes round and round', 'go round and round', 'going round and round'),
    ),
    'swings': (
        ('swings', 'swing', 'swinging'),
        ('swings from side to side', 'swing from side to side', 'swinging from side to side'),
    ),
    'spins': (
        ('spins', 'spin', 'spinning'),
        ('rotates', 'rotate', 'rotating'),
        ('spins around', 'spin around', 'spinning around'),
    ),
    'pulses': (('grows and shrinks', 'grow and shrink', 'growing and shrinking'), ('pulses', 'pulse', 'pulsing')),
}
PLACE_WORDS = {
    'meadow': ('over a meadow', 'over a green meadow', 'over grass and flowers'),
    'desert': ('in the desert', 'over the desert', 'over desert sand'),
    'ocean': ('over the ocean', 'over the sea', 'over blue water'),
    'snow': ('over the snow', 'in the snow', 'over white snow'),
    'night sky': ('in the night sky', 'in a starry sky', 'in the dark night sky'),
    'lava': ('over lava', 'over hot lava', 'over a lava field'),
    'moon': ('on the moon', 'on the grey moon', 'over moon craters'),
}
# (does, doing)
CAMERA_WORDS = {
    **{
        f'pans {way}': ((f'pans {way}', f'panning {way}'), (f'moves {way}', f'moving {way}'))
        for way in ('left', 'right', 'up', 'down')
    },
    'zooms in and out': (('zooms in and out', 'zooming in and out'),),
    'follows': (('follows', 'following'),),
}


class _Choices:
    """Random choices that depend only on two integers, not on the generator of a library, so captions never change."""

    def __init__(self, salt, variant):
        self.state = (int(salt) * 0x9E3779B97F4A7C15 + int(variant) * 0xD1B54A32D192ED03 + 0x1234567) % 2**64

    def __call__(self, options):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return options[(self.state >> 33) % len(options)]


def _noun(choose, thing, brief):
    colour, shape, pattern = thing['colour'], choose(SHAPE_WORDS[thing['shape']]), thing['pattern']
    if pattern == 'plain' or brief:
        phrase = f'{colour} {shape}'
    else:
        adjective, noun = PATTERN_WORDS[pattern]
        plain = f'{colour} {shape}'
        phrase = choose((f'{adjective} {plain}', f'{colour} {adjective} {shape}', f'{plain} with {noun}'))
    return ('an ' if phrase[0] in 'aeiou' else 'a ') + phrase


def _clause(choose, things, form, brief):
    """The objects and what they do; form 0 is 'does', form 2 'doing'."""
    nouns = [_noun(choose, thing, brief) for thing in things]
    verbs = [choose(MOTION_WORDS[thing['motion']]) for thing in things]
    if len(things) == 1:
        return f'{nouns[0]} {verbs[0][form]}'
    if things[0]['motion'] == things[1]['motion']:
        return f'{nouns[0]} and {nouns[1]} {verbs[0][form or 1]}'
    sides = choose((('', ''), (' on the left', ' on the right')))
    return ' and '.join(f'{noun} {verb[form]}{side}' for noun, verb, side in zip(nouns, verbs, sides))


def is_brief(scene: Scene, variant: int = 0) -> bool:
    """Whether the caption names only colours, shapes and motions. Others tell all; plain objects have no word."""
    return _brief(_Choices(np.asarray(scene.salt), variant))


def _brief(choose):
    return choose(range(6)) == 0


def caption(scene: Scene, variant: int = 0) -> str:
    """A sentence that describes one scene; `variant` (any integer) chooses the wording.

    One sentence in six is brief, see `is_brief`.
    """
    scene = jax.tree.map(np.asarray, scene)
    names = describe(scene)
    choose = _Choices(scene.salt, variant)
    brief = _brief(choose)
    form, opening = choose(((0, ''), (0, ''), (2, ''), (2, 'a video of ')))
    clause = _clause(choose, names['objects'], form, brief)
    if brief:
        return opening + clause
    place = choose(PLACE_WORDS[names['background']])
    if opening or choose(range(4)):
        sentence = f'{opening}{clause} {place}'
    else:
        sentence = f'{place}, {clause}'
    camera = names['camera']
    if camera == 'still' or (camera == 'follows' and choose(range(3))):
        return sentence
    does, doing = choose(CAMERA_WORDS[camera])
    return sentence + choose((f', the camera {does}', f' while the camera {does}', f', camera {doing}'))


def words() -> list[str]:
    """All words that occur in captions, sorted."""
    tables = (SHAPE_WORDS, PATTERN_WORDS, MOTION_WORDS, PLACE_WORDS, CAMERA_WORDS)
    found = set()

    def collect(entry):
        if isinstance(entry, str):
            found.update(re.findall(r'[a-z]+', entry))
        else:
            for part in entry:
                collect(part)

    for table in tables:
        collect(table.values())
    collect(COLOURS)
    collect('a an and video of the camera while with on left right')
    return sorted(found)
