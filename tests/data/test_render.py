"""Frames show their scene: they do not depend on each other, move like the ground truth, and never repeat."""

import jax
import numpy as np
import pytest

from st2v_jax.data import world

RENDERED_LIKE = dict(rtol=0, atol=2e-4)  # rounding, visible at hard edges


def ground_only(scene):
    return scene._replace(count=np.int32(0))


def shift_between(a, b):
    """How far (x, y) the picture moved from a to b [n, n, 3], by phase correlation; whole pixels."""
    window = np.outer(*2 * [np.hanning(len(a))])[..., None]
    spectra = [np.fft.fft2((frame - frame.mean((0, 1))) * window, axes=(0, 1)) for frame in (b, a)]
    cross = (spectra[0] * spectra[1].conj()).sum(-1)
    y, x = np.unravel_index(np.fft.ifft2(cross / (np.abs(cross) + 1e-6)).real.argmax(), cross.shape)
    return np.array([(v + 64) % 128 - 64 for v in (x, y)])


def correlation(a, b):
    return np.corrcoef(a.mean(-1).ravel(), b.mean(-1).ravel())[0, 1]


@pytest.fixture(scope='module')
def panning(many, first_where):
    def pick(camera, count=1):
        return first_where((many.camera == world.CAMERAS.index(camera)) & (many.count == count))

    return pick


def test_a_frame_does_not_depend_on_its_company(many):
    scene = jax.tree.map(lambda leaf: leaf[11], many)
    together = world.render(scene, np.array([0, 5, 700, 1199]), 32)
    for place, index in enumerate((0, 5, 700, 1199)):
        np.testing.assert_allclose(world.render(scene, np.array([index]), 32)[0], together[place], **RENDERED_LIKE)
    scenes = jax.tree.map(lambda leaf: leaf[10:13], many)
    batch = jax.vmap(lambda scene: world.render(scene, np.array([5, 700]), 32))(scenes)
    np.testing.assert_allclose(batch[1], together[1:3], **RENDERED_LIKE)


@pytest.mark.slow
def test_compiled_and_not_agree(many):
    scene = jax.tree.map(lambda leaf: leaf[1], many)
    compiled = world.render(scene, np.array([3]), 32)
    with jax.disable_jit():
        np.testing.assert_allclose(world.render(scene, np.array([3]), 32), compiled, **RENDERED_LIKE)


@pytest.mark.parametrize('size', [64, 128])
def test_frames_fill_their_range(many, size):
    frames = np.asarray(world.render(jax.tree.map(lambda leaf: leaf[4], many), np.arange(4), size))
    assert frames.shape == (4, size, size, 3) and frames.dtype == np.float32
    assert -1 <= frames.min() < -0.5 and 0.5 < frames.max() <= 1


@pytest.mark.parametrize('motion', ['moves left', 'bounces', 'circles', 'swings', 'pulses'])
def test_the_truth_is_where_the_pixels_are(many, first_where, motion):
    code = world.MOTIONS.index(motion)
    scene = first_where(
        (many.count == 1) & (many.motion[:, 0] == code), shape=np.zeros(2, np.int32), pattern=np.zeros(2, np.int32)
    )
    indices = np.array([0, 3, 7, 600, 1199])
    frames = np.asarray(world.render(scene, indices, 128))
    truth = jax.device_get(world.truth(scene, indices, 128))
    bare = np.asarray(world.render(scene._replace(radius=np.full(2, 1e-3, np.float32)), indices, 128))
    bright = np.abs(frames - bare).sum(-1)
    y, x = np.mgrid[:128, :128] + 0.5
    for frame, changed, centre, radius in zip(frames, bright, truth['centres'][:, 0], truth['radii'][:, 0]):
        inside = np.hypot(x - centre[0], y - centre[1]) < radius
        coloured = inside & (changed > 0.15)
        assert coloured.sum() > 0.9 * inside.sum()
        body = np.hypot(x - centre[0], y - centre[1]) < 0.6 * radius
        ring = np.abs(np.hypot(x - centre[0], y - centre[1]) - radius + 1) < 0.7  # the dark outline
        assert frame[ring].mean() < frame[body].mean() - 0.2


def test_the_truth_scales_with_the_picture(many):
    scene = jax.tree.map(lambda leaf: leaf[3], many)
    small, large = (jax.device_get(world.truth(scene, np.arange(8), size)) for size in (64, 128))
    for name in ('centres', 'radii', 'camera'):
        np.testing.assert_allclose(2 * small[name], large[name], rtol=1e-6)
    np.testing.assert_array_equal(small['zoom'], large['zoom'])


@pytest.mark.parametrize('size', [(48, 32), (32, 80)])
def test_a_longer_side_shows_more_of_the_same_world(many, size):
    scene = jax.tree.map(lambda leaf: leaf[3], many)
    square, frames = (np.asarray(world.render(scene, np.array([0, 700]), size)) for size in (32, size))
    top, left = ((side - 32) // 2 for side in size)
    assert frames.shape == (2, *size, 3)
    np.testing.assert_allclose(frames[:, top : top + 32, left : left + 32], square, **RENDERED_LIKE)
    inside, outside = (world.truth(scene, np.array([0, 700]), size)['centres'] for size in (32, size))
    np.testing.assert_allclose(outside, inside + np.array([left, top]), rtol=1e-6)
    assert frames[:, :, : max(left, 1)].std() > 0.01


@pytest.mark.parametrize('camera', ['pans left', 'pans right', 'pans up', 'pans down', 'follows'])
def test_the_ground_moves_against_the_camera_at_its_speed(panning, camera):
    scene = panning(camera)
    indices = np.array([0, 4, 1000, 1004])
    frames = np.asarray(world.render(ground_only(scene), indices, 128))
    went = np.asarray(world.truth(scene, indices, 128)['camera'])
    for a, b in ((0, 1), (2, 3)):
        moved = went[b] - went[a]
        assert 8 <= np.abs(moved).max() <= 14  # 2 to 3.5 pixels a frame
        assert np.abs(shift_between(frames[a], frames[b]) + moved).max() <= 1


def test_a_still_camera_sees_a_still_ground(panning):
    frames = np.asarray(world.render(ground_only(panning('still')), np.array([0, 500]), 64))
    np.testing.assert_array_equal(frames[0], frames[1])


def test_a_zoom_returns(panning):
    scene = panning('zooms in and out')
    period = int(scene.zoom_period)
    zoom = np.asarray(world.truth(scene, np.arange(period), 64)['zoom'])
    assert zoom.min() < 0.8 and zoom.max() > 1.25
    frames = np.asarray(world.render(scene, np.array([2, 2 + period // 2]), 64))
    assert np.abs(frames[0] - frames[1]).mean() > 0.02


def test_new_ground_keeps_entering(panning):
    """In a pan of 1200 frames, no two frames show the same ground."""
    scene = ground_only(panning('pans right'))
    frames = np.asarray(world.render(scene, np.arange(0, 1200, 70), 32))  # at least 140 pixels apart
    pairs = [correlation(frames[i], frames[j]) for i in range(len(frames)) for j in range(i)]
    assert max(pairs) < 0.75 and abs(np.mean(pairs)) < 0.15


@pytest.mark.parametrize('start', [0, 1190, 1_000_000])
def test_the_ground_is_rigid_however_far_the_camera_went(panning, start):
    scene = ground_only(panning('pans right'))._replace(velocity=np.array([512, 0], np.int32))
    frames = np.asarray(world.render(scene, start + np.arange(40), 128))
    for step in (1, 33, 39):  # beyond a tile of 64 pixels
        np.testing.assert_allclose(frames[step][:, : 128 - 2 * step], frames[0][:, 2 * step :], atol=5e-4)


def test_colours_stay_apart(many, first_where):
    """The middle of a plain box has the colour of its name."""
    from st2v_jax.data.world.attributes import COLOUR_RGB

    for code, name in enumerate(world.COLOURS):
        scene = first_where(
            (many.count == 1) & (many.colour[:, 0] == code),
            shape=np.ones(2, np.int32),
            pattern=np.zeros(2, np.int32),
            motion=np.zeros(2, np.int32),
        )
        frame = (np.asarray(world.render(scene, np.array([0]), 128))[0] + 1) / 2
        x, y = np.asarray(world.truth(scene, np.array([0]), 128)['centres'])[0, 0].astype(int)
        seen = frame[y - 4 : y + 5, x - 4 : x + 5].mean((0, 1))
        assert world.COLOURS[np.linalg.norm(COLOUR_RGB - seen, axis=-1).argmin()] == name
