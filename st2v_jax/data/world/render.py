"""From a scene to frames, and to the truth about them."""

from functools import partial

import jax
import jax.numpy as jnp

from st2v_jax.data.world import background, motion, objects
from st2v_jax.data.world.scene import visible


def _frame(scene, index, size):
    """One frame [h,w,3] in [-1, 1]."""
    pixel, corner = _placed(size)
    y, x = ((jnp.arange(n, dtype=jnp.float32) + 0.5 - start) * pixel for n, start in zip(_sides(size), corner))
    rgb = background.paint(scene, motion.camera(scene, index), x, y)
    pose, shown = motion.pose(scene, index), visible(scene).astype(jnp.float32)
    for i in range(2):
        rgb = objects.paint_shadow(rgb, pose, i, shown[i], x, y)
    for i in range(2):
        rgb = objects.paint(rgb, scene, pose, i, shown[i], x, y, pixel)
    return 2 * rgb - 1


@partial(jax.jit, static_argnames='size')
def render(scene, frame_indices, size=128):
    """Frames [f,h,w,3] float32 in [-1, 1] of one scene at frame_indices [f] (integers >= 0, in any order).

    size: (h, w), or one number for a square. What a square shows lies in the middle of the longer side, and there is
    more ground around it. A frame depends on the scene and its own index only. Vmap over scenes (and indices) for a
    batch.
    """
    return jax.vmap(lambda index: _frame(scene, index, size))(jnp.asarray(frame_indices, jnp.int32))


@partial(jax.jit, static_argnames='size')
def truth(scene, frame_indices, size=128):
    """What frame_indices [f] of a scene show, in pixels of frames of `size` (pixel i spans i to i + 1; y is down).

    Returns a dict: 'centres' [f,2,2] x, y of the two objects, 'radii' [f,2], 'angles' [f,2] radians clockwise,
    'visible' [2] bool, 'camera' [f,2] how far the camera has moved (the ground moves the other way), 'zoom' [f].
    """
    indices = jnp.asarray(frame_indices, jnp.int32)
    pose = jax.vmap(lambda i: motion.pose(scene, i))(indices)
    camera = jax.vmap(lambda i: motion.camera(scene, i))(indices)
    pixel, corner = _placed(size)
    scale = 1 / pixel
    return dict(
        centres=scale * pose.centre + jnp.array(corner[::-1]),
        radii=scale * pose.radius,
        angles=pose.angle,
        visible=visible(scene),
        camera=scale * (background.TILE * camera.tile + camera.rest),
        zoom=camera.zoom,
    )


def _sides(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def _placed(size):
    """(length of a pixel, (y, x) pixel where the square begins that a square frame shows)."""
    sides = _sides(size)
    side = min(sides)
    return motion.FRAME / side, tuple((n - side) / 2 for n in sides)
