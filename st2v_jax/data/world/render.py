"""Renders the frames of a scene, and gives the ground truth about them."""

from functools import partial

import jax
import jax.numpy as jnp

from st2v_jax.data.world import background, motion, objects
from st2v_jax.data.world.scene import Scene, visible


def _frame(scene, index, size):
    """One frame [h, w, 3] in [-1, 1]."""
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
def render(scene: Scene, frame_indices: jax.Array, size: int | tuple[int, int] = 128) -> jax.Array:
    """Renders frames [f, h, w, 3] of one scene, float32 in [-1, 1].

    A frame depends only on the scene and on its own index. Vmap over scenes (and indices) for a batch.

    Args:
      scene: what to show.
      frame_indices: [f] integers from 0 on, in any order.
      size: (h, w), or one number for a square. A frame that is not a square shows what the square shows in the middle
        of its longer side, and more ground around it.
    """
    return jax.vmap(lambda index: _frame(scene, index, size))(jnp.asarray(frame_indices, jnp.int32))


@partial(jax.jit, static_argnames='size')
def truth(scene: Scene, frame_indices: jax.Array, size: int | tuple[int, int] = 128) -> dict[str, jax.Array]:
    """The ground truth about frames [f] of a scene, in pixels of frames of `size`; pixel i spans i to i + 1, y is down.

    Returns:
      'centres' [f, 2, 2], x and y of the two objects; 'radii' [f, 2]; 'angles' [f, 2], clockwise in radians; 'visible'
      [2], bool; 'camera' [f, 2], how far the camera has moved (the ground moves the other way); 'zoom' [f].
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
    """The length of a pixel, and the (y, x) pixel where the square part of a frame begins."""
    sides = _sides(size)
    side = min(sides)
    return motion.FRAME / side, tuple((n - side) / 2 for n in sides)
