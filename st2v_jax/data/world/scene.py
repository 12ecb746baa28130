"""A scene: everything that a long video of this world needs, drawn from (seed, index)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax.data.world.attributes import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    PATTERNS,
    SHAPES,
    TRACKING,
    allowed_colours,
)
from st2v_jax.data.world.hashing import Draws, mix

BOUNCES, CIRCLES, SWINGS, SPINS, PULSES = range(TRACKING, len(MOTIONS))
ZOOMS, FOLLOWS = CAMERAS.index('zooms in and out'), CAMERAS.index('follows')
HELD_OUT_SHARE = 8  # one of so many combinations of colour, shape and motion is never trained on
SPLITS = ('train', 'held_out')


class Scene(NamedTuple):
    """Small arrays; lengths in shares of the frame, times in frames. Objects stand from left to right.

    The second object's row is filled also where `count` is 1; it is then neither shown nor named.
    """

    salt: jax.Array  # uint32: seeds the ground's texture and the wording of captions
    count: jax.Array  # 1 or 2 objects
    colour: jax.Array  # [2] ids into COLOURS, as the three below into their tuples
    shape: jax.Array  # [2]
    pattern: jax.Array  # [2]
    motion: jax.Array  # [2]
    background: jax.Array
    camera: jax.Array
    home: jax.Array  # [2,2] x, y around which an object moves
    radius: jax.Array  # [2]
    reach: jax.Array  # [2] amplitude of its motion
    period: jax.Array  # [2] whole frames
    phase: jax.Array  # [2] whole frames
    velocity: jax.Array  # [2] int32: camera over ground, 1/256 pixel of a 128 pixel frame, per frame
    zoom_period: jax.Array  # whole frames
    zoom_phase: jax.Array


@jax.jit
def scene(seed, index):
    """The scene number `index` of the world `seed`, both integers (or traced int32); vmap over index for many."""
    salt = mix(mix(np.uint32(0x5EED), seed), index)
    draw = Draws(salt)
    two = draw.integer(0, 4) == 0

    background = draw.integer(0, len(BACKGROUNDS))
    table, allowed = (jnp.asarray(a)[background] for a in allowed_colours())
    first = draw.integer(0, allowed)
    second = (first + draw.integer(1, allowed)) % allowed
    colour = jnp.stack([table[first], table[second]])
    first = draw.integer(0, len(SHAPES))
    shape = jnp.stack([first, (first + draw.integer(1, len(SHAPES))) % len(SHAPES)])

    # Two objects share a tracking shot, because one camera cannot follow both ways.
    alone = draw.integer(0, len(MOTIONS))
    shared, paired = draw.integer(0, TRACKING), [draw.integer(TRACKING, len(MOTIONS)) for _ in range(2)]
    together = jnp.where(draw.integer(0, 3) == 0, jnp.stack([shared, shared]), jnp.stack(paired))
    motion = jnp.where(two, together, jnp.stack([alone, alone]))
    tracking = motion[0] < TRACKING

    # Half of the objects are plain; a round thing needs a pattern to be seen spinning.
    pattern = jnp.stack([jnp.maximum(draw.integer(2 - len(PATTERNS), len(PATTERNS)), 0) for _ in range(2)])
    marked = jnp.stack([draw.integer(1, len(PATTERNS)) for _ in range(2)])
    round_shape = (shape == SHAPES.index('ball')) | (shape == SHAPES.index('ring'))
    pattern = jnp.where((pattern == 0) & round_shape & (motion == SPINS), marked, pattern)

    pan = draw.integer(0, 4)
    kind = draw.integer(0, 100)  # of the camera: a quarter still, 15 % zooms, the rest pans
    camera = jnp.where(kind < 25, 0, jnp.where(kind < 40, ZOOMS, 1 + pan))
    camera = jnp.where(tracking, FOLLOWS, camera)
    speed = draw.integer(2 * 256, 7 * 128 + 1)
    direction = jnp.where(tracking, motion[0], pan)
    moves = tracking | ((camera >= 1) & (camera <= 4))
    velocity = jnp.where(moves, speed * jnp.asarray(DIRECTIONS)[direction], 0)

    each = partial(_for_motion, motion)
    period = jnp.stack(
        [
            draw.integer(a, b)
            for a, b in zip(
                *each(
                    default=(12, 19),
                    bounces=(10, 15),
                    circles=(16, 25),
                    swings=(16, 25),
                    spins=(18, 25),
                    pulses=(12, 19),
                )
            )
        ]
    )
    phase = jnp.stack([draw.integer(0, period[i]) for i in range(2)])
    low, high = each(default=(0.02, 0.03), bounces=(0.24, 0.30), circles=(0.14, 0.18), swings=(0.20, 0.25))
    pair_low, pair_high = each(default=(0.02, 0.03), bounces=(0.24, 0.30), circles=(0.10, 0.12), swings=(0.11, 0.13))
    low, high = jnp.where(two, pair_low, low), jnp.where(two, pair_high, high)
    reach = jnp.stack([draw.uniform(low[i], high[i]) for i in range(2)])
    size = jnp.stack([draw.uniform(0.155, 0.195) for _ in range(2)])
    radius = jnp.where(two, 0.76 * size, size)

    jitter = lambda: jnp.stack([draw.uniform(-0.5, 0.5) for _ in range(2)])
    dx, dy = jitter(), jitter()
    x = jnp.where(two, jnp.array([0.26, 0.74]) + 0.02 * dx, 0.5 + 0.1 * dx)
    y = jnp.where(motion == BOUNCES, 0.64, 0.5) + jnp.where(two, 0.2, 0.1) * dy
    return Scene(
        salt=salt,
        count=1 + two.astype(jnp.int32),
        colour=colour,
        shape=shape,
        pattern=pattern,
        motion=motion,
        background=background,
        camera=camera,
        home=jnp.stack([x, y], axis=-1),
        radius=radius,
        reach=reach,
        period=period,
        phase=phase,
        velocity=velocity,
        zoom_period=draw.integer(24, 37),
        zoom_phase=draw.integer(0, 24),
    )


def _for_motion(motion, *, default, **ranges):
    """(low [2], high [2]) of a quantity whose range depends on each object's motion [2]."""
    table = np.array([ranges.get(name, default) for name in MOTIONS])
    return tuple(jnp.asarray(table)[motion].T)


def held_out(scene):
    """Whether either object shown has a combination of colour, shape and motion kept from training; bool array.

    A property of the combination alone: the seed has no say in it.
    """
    combination = (scene.colour * len(SHAPES) + scene.shape) * len(MOTIONS) + scene.motion
    kept = mix(mix(np.uint32(0xBEEF), combination), 7) % HELD_OUT_SHARE == 0
    return jnp.any(kept & visible(scene), axis=-1)


def visible(scene):
    """bool [2]: which of the two objects are shown."""
    return jnp.arange(2) < scene.count[..., None]


@jax.jit
def _held_out_indices(seed, indices):
    return jax.vmap(lambda index: held_out(scene(seed, index)))(indices)


def split_indices(split, seed, start, count):
    """Indices [count] of the scenes number start, start + 1, ... that belong to a split, 'train' or 'held_out'."""
    if split not in SPLITS:
        raise ValueError(f'the splits are {SPLITS}, not {split!r}')
    if start < 0 or count < 0:
        raise ValueError(f'start and count are at least 0, not {start} and {count}')
    found, total, step = [], 0, 8192
    for base in range(0, 2**31 - step, step):
        if total >= start + count:
            break
        indices = np.arange(base, base + step, dtype=np.int32)
        kept = np.asarray(_held_out_indices(seed, indices))
        found.append(indices[kept == (split == 'held_out')])
        total += len(found[-1])
    return np.concatenate([np.zeros(0, np.int32), *found])[start : start + count]


def describe(scene):
    """Names of what one scene shows: a dict with 'objects', 'background' and 'camera'.

    'objects' lists, from left to right, dicts with 'colour', 'shape', 'pattern' and 'motion'.
    """
    scene = jax.tree.map(np.asarray, scene)
    objects = [
        dict(
            colour=COLOURS[scene.colour[i]],
            shape=SHAPES[scene.shape[i]],
            pattern=PATTERNS[scene.pattern[i]],
            motion=MOTIONS[scene.motion[i]],
        )
        for i in range(int(scene.count))
    ]
    return dict(objects=objects, background=BACKGROUNDS[scene.background], camera=CAMERAS[scene.camera])
