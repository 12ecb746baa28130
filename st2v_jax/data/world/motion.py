"""Where objects and camera are at any frame: closed forms of the frame number, good for endless videos."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from st2v_jax.data.world.attributes import TRACKING
from st2v_jax.data.world.scene import BOUNCES, CIRCLES, PULSES, SPINS, SWINGS, ZOOMS

FRAME = 128  # pixels of the frame in which lengths of this package are given


class Pose(NamedTuple):
    """The two objects at one frame, in pixels of a 128 pixel frame; angles are clockwise, in radians."""

    centre: jax.Array  # [2,2] x, y
    radius: jax.Array  # [2]
    angle: jax.Array  # [2]
    height: jax.Array  # [2] above the ground, where the shadow lies


class Camera(NamedTuple):
    """tile + rest is how far the camera has gone; whole tiles of 64 pixels apart, so that it never loses precision."""

    tile: jax.Array  # [2] int32
    rest: jax.Array  # [2] pixels in [0, 64)
    zoom: jax.Array  # over 1 is nearer


def _turns(frame, phase, period):
    """Share of a period that has passed; exact however far the frame, as periods are whole frames."""
    return ((frame + phase) % period).astype(jnp.float32) / period


def pose(scene, frame):
    """Scene, frame number -> Pose."""
    turn = _turns(frame, scene.phase, scene.period)
    sine, cosine = jnp.sin(2 * jnp.pi * turn), jnp.cos(2 * jnp.pi * turn)
    doing = [scene.motion == m for m in (BOUNCES, CIRCLES, SWINGS)]
    hop = scene.reach * jnp.abs(jnp.sin(jnp.pi * turn))
    x = jnp.select(doing, [0.0 * turn, scene.reach * cosine, scene.reach * sine])
    bob = jnp.where(scene.motion < TRACKING, scene.reach * sine, 0.0)
    y = jnp.select(doing, [-hop, scene.reach * sine, 0.4 * scene.reach * cosine**2], bob)
    angle = jnp.select([scene.motion == SPINS, scene.motion == SWINGS], [2 * jnp.pi * turn, -0.25 * sine], 0.0)
    grown = jnp.where(scene.motion == PULSES, 1 + 0.3 * sine, 1.0)
    height = jnp.where(scene.motion == BOUNCES, hop, 0.0)
    centre = scene.home + jnp.stack([x, y], axis=-1)
    return Pose(FRAME * centre, FRAME * scene.radius * grown, angle, FRAME * height)


def camera(scene, frame):
    """Scene, frame number -> Camera. Fixed-point, exact up to two million frames."""
    way = scene.velocity * jnp.asarray(frame, jnp.int32)
    turn = _turns(frame, scene.zoom_phase, scene.zoom_period)
    zoom = jnp.where(scene.camera == ZOOMS, jnp.exp(0.28 * jnp.sin(2 * jnp.pi * turn)), 1.0)
    return Camera(way >> 14, (way & 0x3FFF).astype(jnp.float32) / 256, zoom)
