"""The objects: shapes from signed distances, surface patterns, light, outline and shadow."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from st2v_jax.data.world.attributes import ACCENT_RGB, COLOUR_RGB, PATTERNS, SHAPES
from st2v_jax.data.world.motion import FRAME, Pose
from st2v_jax.data.world.scene import Scene

OUTLINE = 2.2  # pixels of a 128 pixel frame
INK = np.array((0.07, 0.06, 0.12), np.float32)


def _polygon(u, v, corners, outer, inner):
    """A star polygon with one corner at the top; inner = outer * cos(pi / corners) makes it regular."""
    half = math.pi / corners
    angle = jnp.abs((jnp.arctan2(u, -v) + half) % (2 * half) - half)
    length = jnp.sqrt(u * u + v * v + 1e-9)
    p, q = length * jnp.cos(angle), length * jnp.sin(angle)
    ex, ey = inner * math.cos(half) - outer, inner * math.sin(half)  # along the edge from the outer corner
    norm = math.hypot(ex, ey)
    return ((p - outer) * ey - q * ex) / norm


def _heart(u, v):
    """Two discs and the wedge tangent to both, mirrored in u."""
    u = jnp.abs(u)
    cx, cy, r, tip = 0.50, -0.30, 0.54, 1.02
    reach = math.hypot(cx, tip - cy)
    along = math.atan2(cy - tip, cx) + math.asin(r / reach)  # direction of the tangent, from the tip
    tx, ty = math.cos(along), math.sin(along)
    edge = -(u * ty) + (v - tip) * tx  # signed distance from the tangent, outside positive
    beyond = u * tx + (v - tip) * ty - math.sqrt(reach**2 - r**2)
    disc = jnp.sqrt((u - cx) ** 2 + (v - cy) ** 2 + 1e-9) - r
    return jnp.minimum(disc, jnp.maximum(edge, beyond))


def distance(shape: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """Signed distance, negative inside, from the outline of a shape of unit size; u points right, v down."""
    length = jnp.sqrt(u * u + v * v + 1e-9)
    box = lambda a, b: jnp.maximum(jnp.abs(u) - a, jnp.abs(v) - b)
    each = {
        'ball': length - 1,
        'box': box(0.80, 0.80) - 0.08,
        'star': _polygon(u, v, 5, 1.22, 0.58) - 0.04,
        'triangle': _polygon(u, v, 3, 1.26, 0.63) - 0.06,
        'ring': jnp.abs(length - 0.73) - 0.31,
        'heart': _heart(u, v),
        'cross': jnp.minimum(box(1.05, 0.37), box(0.37, 1.05)),
    }
    return jnp.select([shape == SHAPES.index(name) for name in each], list(each.values()))


def _marks(pattern, u, v, pixel):
    """How much of the accent colour a pattern shows, [h, w] in [0, 1]; u, v in pixels from the object's centre."""
    edge = lambda d: jnp.clip(0.5 - d / (1.2 * pixel), 0, 1)
    tri = lambda s, period: jnp.abs((s / period + 0.5) % 1 - 0.5) * period  # distance to the nearest multiple
    dots = edge(jnp.hypot(tri(u, 15.0), tri(v, 15.0)) - 4.4)
    stripes = edge(tri(u - 7, 14.0) - 3.2)
    check = lambda s: tri(s, 20.0) - 5.0  # negative on even fields
    a, b = check(u - 5), check(v - 5)
    checks = edge(-jnp.sign(a * b) * jnp.minimum(jnp.abs(a), jnp.abs(b)))
    each = {'striped': stripes, 'dotted': dots, 'checkered': checks}
    return jnp.select([pattern == PATTERNS.index(name) for name in each], list(each.values()), 0.0)


def paint_shadow(rgb: jax.Array, pose: Pose, i: int, shown: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Paints the soft shadow of object i on rgb [h, w, 3], at columns x [w] and rows y [h]."""
    radius = pose.radius[i]
    u = x[None, :] - (pose.centre[i, 0] + 4)
    v = y[:, None] - (pose.centre[i, 1] + pose.height[i] + 6)
    near = jnp.clip(1.25 - jnp.sqrt(u * u + v * v) / radius, 0, 0.5) * 2
    strength = 0.45 / (1 + pose.height[i] / FRAME * 2)
    return rgb * (1 - shown * strength * (near * near * (3 - 2 * near))[..., None])


def paint(
    rgb: jax.Array,
    scene: Scene,
    pose: Pose,
    i: int,
    shown: jax.Array,
    x: jax.Array,
    y: jax.Array,
    pixel: float,
) -> jax.Array:
    """Paints object i over rgb [h, w, 3], at columns x [w] and rows y [h].

    pixel: length of one pixel of the picture, which decides how soft edges are.
    """
    radius, angle = pose.radius[i], pose.angle[i]
    dx, dy = x[None, :] - pose.centre[i, 0], y[:, None] - pose.centre[i, 1]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    outside = radius * distance(scene.shape[i], u / radius, v / radius)

    grown = radius / (FRAME * scene.radius[i])  # the pattern of a pulsing object grows with it
    colour, accent = jnp.asarray(COLOUR_RGB)[scene.colour[i]], jnp.asarray(ACCENT_RGB)[scene.colour[i]]
    marks = _marks(scene.pattern[i], u / grown, v / grown, pixel)[..., None]
    body = colour + marks * (accent - colour)
    # Light always comes from the upper left.
    lit = jnp.clip(1.0 - 0.16 * (dx + dy) / radius, 0.7, 1.12)[..., None]
    gloss = 0.38 * jnp.exp(-((dx / radius + 0.36) ** 2 + (dy / radius + 0.42) ** 2) / 0.05)[..., None]
    body = jnp.minimum(body * lit, 1) * (1 - gloss) + gloss
    ink = jnp.clip(0.5 + (outside + OUTLINE) / (1.5 * pixel), 0, 1)[..., None]
    body = body + 0.85 * ink * (INK - body)
    cover = shown * jnp.clip(0.5 - outside / pixel, 0, 1)[..., None]
    return rgb + cover * (body - rgb)
