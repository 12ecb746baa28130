"""From a scene to frames, and to the truth about them."""

from functools import partial

import jax
import jax.numpy as jnp

from st2v_jax.data.world import background, motion, objects
from st2v_jax.data.world.scene import visible


def _frame(scene, index, size):
    """One frame [size,size,3] in [-1, 1]."""
    pixel = motion.FRAME / size
    x = y = (jnp.arange(size, dtype=jnp.float32) + 0.5) * pixel
    rgb = background.paint(scene, motion.camera(scene, index), x, y)
    pose, shown = motion.pose(scene, index), visible(scene).astype(jnp.float32)
    for i in range(2):
        rgb = objects.paint_shadow(rgb, pose, i, shown[i], x, y)
    for i in range(2):
        rgb = objects.paint(rgb, scene, pose, i, shown[i], x, y, pixel)
    return 2 * rgb - 1


@partial(jax.jit, static_argnames='size')
def render(scene, frame_indices, size=128):
    """Frames [f,size,size,3] float32 in [-1, 1] of one scene at frame_indices [f] (integers >= 0, in any order).

    A frame depends on the scene and its own index only. Vmap over scenes (and indices) for a batch.
    """
    return jax.vmap(lambda index: _frame(scene, index, size))(jnp.asarray(frame_indices, jnp.int32))


@partial(jax.jit, static_argnames='size')
def truth(scene, frame_indices, size=128):
    """What frame_indices [f] of a scene show, in pixels of size x size frames (pixel i spans i to i + 1; y is down).

    Returns a dict: 'centres' [f,2,2] x, y of the two objects, 'radii' [f,2], 'angles' [f,2] radians clockwise,
    'visible' [2] bool, 'camera' [f,2] how far the camera has moved (the ground moves the other way), 'zoom' [f].
    """
    indices = jnp.asarray(frame_indices, jnp.int32)
    pose = jax.vmap(lambda i: motion.pose(scene, i))(indices)
    camera = jax.vmap(lambda i: motion.camera(scene, i))(indices)
    scale = size / motion.FRAME
    return dict(
        centres=scale * pose.centre, radii=scale * pose.radius, angles=pose.angle, visible=visible(scene),
        camera=scale * (background.TILE * camera.tile + camera.rest), zoom=camera.zoom)
