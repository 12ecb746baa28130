"""The ground: coloured value noise and scattered landmarks on an endless plane; depends only on the position."""

import jax
import jax.numpy as jnp

from st2v_jax.data.world.attributes import ground_table
from st2v_jax.data.world.hashing import mix, unit
from st2v_jax.data.world.motion import FRAME, Camera
from st2v_jax.data.world.scene import Scene

OCTAVES = ((64, 0.5), (32, 0.32), (16, 0.18))  # (wavelength in pixels of a 128 pixel frame, weight)
TILE = 64  # pixels; a multiple of all wavelengths and of the cells of landmarks
CELL = 32  # pixels; a cell holds at most one landmark and all of it, so that a pixel depends only on its own cell


def _smooth(t):
    return t * t * (3 - 2 * t)


def _lattice(tile, local, wavelength):
    """The lattice index (int32) and the fraction in [0, 1) of positions: whole tiles, and pixels from there."""
    place = local / wavelength
    whole = jnp.floor(place)
    return tile * (TILE // wavelength) + whole.astype(jnp.int32), place - whole


def value_noise(salt: jax.Array, ix: jax.Array, fx: jax.Array, iy: jax.Array, fy: jax.Array) -> jax.Array:
    """Noise [h, w] at columns ix, fx [w] and rows iy, fy [h]: hashed values at lattice points, smooth in between."""
    column = lambda i: mix(salt, i)[None, :]
    corner = lambda dx, dy: unit(mix(column(ix + dx), (iy + dy)[:, None]))
    sx, sy = _smooth(fx)[None, :], _smooth(fy)[:, None]
    top = corner(0, 0) + sx * (corner(1, 0) - corner(0, 0))
    bottom = corner(0, 1) + sx * (corner(1, 1) - corner(0, 1))
    return top + sy * (bottom - top)


def paint(scene: Scene, camera: Camera, x: jax.Array, y: jax.Array) -> jax.Array:
    """Colours [h, w, 3] in [0, 1] of the ground at columns x [w] and rows y [h], in pixels of a 128 pixel frame."""
    look = jax.tree.map(lambda a: jnp.asarray(a)[scene.background], ground_table())
    half = FRAME / 2
    x = camera.rest[0] + half + (x - half) / camera.zoom
    y = camera.rest[1] + half + (y - half) / camera.zoom
    tile_x, tile_y = camera.tile

    level = 0.0
    for wavelength, weight in OCTAVES:
        ix, fx = _lattice(tile_x, x, wavelength)
        # The rows of a flat ground are half as high: the same lattice, twice as dense.
        dense = look.flat.astype(jnp.int32)
        place = y * look.flat / wavelength
        iy, fy = tile_y * dense * (TILE // wavelength) + jnp.floor(place).astype(jnp.int32), place - jnp.floor(place)
        level += weight * value_noise(mix(scene.salt, wavelength), ix, fx, iy, fy)
    ridges = (1 - jnp.abs(2 * level - 1)) ** 5
    level = level + look.ridge * (ridges - level)
    level = _smooth(jnp.clip(1.6 * (level - 0.5) + 0.5, 0, 1))[..., None]
    upper = jnp.clip(2 * level - 1, 0, 1)
    rgb = look.low + jnp.clip(2 * level, 0, 1) * (look.middle - look.low) + upper * (look.high - look.middle)
    return _landmarks(scene, look, rgb, tile_x, x, tile_y, y)


def _landmarks(scene, look, rgb, tile_x, x, tile_y, y):
    salt = mix(scene.salt, 0xF10)
    row, fy = _lattice(tile_y, y, CELL)
    # Each row of cells is shifted, which hides the grid.
    shift = CELL * unit(mix(mix(salt, 1), row))[:, None]
    column, fx = _lattice(tile_x, x[None, :] + shift, CELL)
    cell = mix(mix(salt, column), row[:, None])
    fortune = lambda n: unit(mix(cell, n))

    radius = look.radius * (0.8 + 0.4 * fortune(1))
    reach = radius * (1 + look.wave) + 1
    spread = CELL - 2 * reach
    u = CELL * fx - (reach + spread * fortune(2))
    v = CELL * fy[:, None] - (reach + spread * fortune(3))
    distance = jnp.sqrt(u * u + v * v + 1e-6)
    outline = radius * (1 + look.wave * jnp.cos(look.petals * jnp.arctan2(u, -v)))
    there = (fortune(4) < look.density).astype(jnp.float32)
    soft = lambda d: jnp.clip(0.5 - d / 1.6, 0, 1)[..., None]  # an edge of 1.6 pixels looks right at every zoom
    shade = 0.35 * _smooth(jnp.clip(1.4 - distance / (radius * (1 + look.wave)), 0, 1))[..., None] * there[..., None]
    rgb = rgb * (1 - shade)
    petal = jnp.where((fortune(5) < 0.5)[..., None], look.petal_a, look.petal_b)
    petal = petal + soft(distance - look.core * radius) * (look.core_rgb - petal)
    return rgb + there[..., None] * soft(distance - outline) * (petal - rgb)
