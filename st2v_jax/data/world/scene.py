"""A scene: everything that a long video of this world depends on, computed from (seed, index)."""

from functools import partial
from typing import Any, NamedTuple

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
HELD_OUT_SHARE = 8  # one in this many combinations of colour, shape and motion is never trained on
SPLITS = ('train', 'held_out')


class Scene(NamedTuple):
    """A scene as small arrays; lengths are shares of the frame, times are in frames.

    The row of the second object is always filled; where `count` is 1, the object is neither shown nor named.

    Attributes:
      salt: uint32, seed of the texture of the ground and of the wording of captions.
      count: 1 or 2 objects, numbered from left to right.
      colour: [2] index into COLOURS; shape, pattern, motion, background and camera are indices too.
      shape: [2].
      pattern: [2].
      motion: [2].
      background: scalar.
      camera: scalar.
      home: [2, 2] x, y of the point around which an object moves.
      radius: [2].
      reach: [2] amplitude of the motion.
      period: [2] whole frames.
      phase: [2] whole frames.
      velocity: [2] int32, of the camera over the ground, in 1/256 pixel of a 128 pixel frame, per frame.
      zoom_period: whole frames.
      zoom_phase: whole frames.
    """

    salt: jax.Array
    count: jax.Array
    colour: jax.Array
    shape: jax.Array
    pattern: jax.Array
    motion: jax.Array
    background: jax.Array
    camera: jax.Array
    home: jax.Array
    radius: jax.Array
    reach: jax.Array
    period: jax.Array
    phase: jax.Array
    velocity: jax.Array
    zoom_period: jax.Array
    zoom_phase: jax.Array


@jax.jit
def scene(seed: jax.Array | int, index: jax.Array | int) -> Scene:
    """The scene with number `index` of the world `seed`; both are integers or traced. Vmap over index for many."""
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

    # In a tracking shot both objects move the same way, because the camera can follow only one.
    alone = draw.integer(0, len(MOTIONS))
    shared, paired = draw.integer(0, TRACKING), [draw.integer(TRACKING, len(MOTIONS)) for _ in range(2)]
    together = jnp.where(draw.integer(0, 3) == 0, jnp.stack([shared, shared]), jnp.stack(paired))
    motion = jnp.where(two, together, jnp.stack([alone, alone]))
    tracking = motion[0] < TRACKING

    # Half of the objects are plain; a round object needs a pattern for its spinning to be visible.
    pattern = jnp.stack([jnp.maximum(draw.integer(2 - len(PATTERNS), len(PATTERNS)), 0) for _ in range(2)])
    marked = jnp.stack([draw.integer(1, len(PATTERNS)) for _ in range(2)])
    round_shape = (shape == SHAPES.index('ball')) | (shape == SHAPES.index('ring'))
    pattern = jnp.where((pattern == 0) & round_shape & (motion == SPINS), marked, pattern)

    pan = draw.integer(0, 4)
    kind = draw.integer(0, 100)  # of the camera: a quarter is still, 15 % zoom, the rest pan
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
    """The range, low [2] and high [2], of a quantity that depends on the motion [2] of each object."""
    table = np.array([ranges.get(name, default) for name in MOTIONS])
    return tuple(jnp.asarray(table)[motion].T)


def held_out(scene: Scene) -> jax.Array:
    """Whether an object shown has a combination of colour, shape and motion that is held out of training; bool.

    This depends only on the combination, not on the seed.
    """
    combination = (scene.colour * len(SHAPES) + scene.shape) * len(MOTIONS) + scene.motion
    kept = mix(mix(np.uint32(0xBEEF), combination), 7) % HELD_OUT_SHARE == 0
    return jnp.any(kept & visible(scene), axis=-1)


def visible(scene: Scene) -> jax.Array:
    """Which of the two objects are shown, bool [2]."""
    return jnp.arange(2) < scene.count[..., None]


@jax.jit
def _held_out_indices(seed, indices):
    return jax.vmap(lambda index: held_out(scene(seed, index)))(indices)


def split_indices(split: str, seed: int, start: int, count: int) -> np.ndarray:
    """Indices [count] of the scenes of a split, 'train' or 'held_out', from its scene number `start` on."""
    if split not in SPLITS:
        raise ValueError(f'split is one of {", ".join(SPLITS)}, not {split!r}')
    if start < 0 or count < 0:
        raise ValueError(f'start and count must be at least 0, not {start} and {count}')
    found, total, step = [], 0, 8192
    for base in range(0, 2**31 - step, step):
        if total >= start + count:
            break
        indices = np.arange(base, base + step, dtype=np.int32)
        kept = np.asarray(_held_out_indices(seed, indices))
        found.append(indices[kept == (split == 'held_out')])
        total += len(found[-1])
    return np.concatenate([np.zeros(0, np.int32), *found])[start : start + count]


def describe(scene: Scene) -> dict[str, Any]:
    """Names of what one scene shows.

    Returns:
      'background' and 'camera', and 'objects', a list from left to right of dicts with 'colour', 'shape', 'pattern' and
      'motion'.
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
