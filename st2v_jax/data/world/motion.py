"""Where the objects and the camera are at each frame: closed forms of the frame number, so videos can be endless."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from st2v_jax.data.world.attributes import TRACKING
from st2v_jax.data.world.scene import BOUNCES, CIRCLES, PULSES, SPINS, SWINGS, ZOOMS, Scene

FRAME = 128  # lengths in this package are in pixels of a frame of this size


class Pose(NamedTuple):
    """The two objects at one frame, in pixels of a 128 pixel frame.

    Attributes:
      centre: [2, 2] x, y.
      radius: [2].
      angle: [2] clockwise, in radians.
      height: [2] above the ground, where the shadow lies.
    """

    centre: jax.Array
    radius: jax.Array
    angle: jax.Array
    height: jax.Array


class Camera(NamedTuple):
    """The camera at one frame. It has moved by tile + rest; tiles are counted apart, so that no precision is lost.

    Attributes:
      tile: [2] int32, whole tiles of 64 pixels.
      rest: [2] pixels in [0, 64).
      zoom: above 1 is closer.
    """

    tile: jax.Array
    rest: jax.Array
    zoom: jax.Array


def _turns(frame, phase, period):
    """The share of a period that has passed. Periods are whole frames, so this is exact for every frame number."""
    return ((frame + phase) % period).astype(jnp.float32) / period


def pose(scene: Scene, frame: jax.Array) -> Pose:
    """The Pose of a scene at a frame number."""
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


def camera(scene: Scene, frame: jax.Array) -> Camera:
    """The Camera of a scene at a frame number; in fixed point, exact up to two million frames."""
    way = scene.velocity * jnp.asarray(frame, jnp.int32)
    turn = _turns(frame, scene.zoom_phase, scene.zoom_period)
    zoom = jnp.where(scene.camera == ZOOMS, jnp.exp(0.28 * jnp.sin(2 * jnp.pi * turn)), 1.0)
    return Camera(way >> 14, (way & 0x3FFF).astype(jnp.float32) / 256, zoom)
