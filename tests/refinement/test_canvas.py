"""The sizes that the Refiner accepts, and frames to its canvas and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from st2v_jax.models import build
from st2v_jax.models.unet3d import UNet3D, UNetConfig
from st2v_jax.refinement.canvas import accepted_size, crop, fit, to_canvas

RELEASED = UNetConfig(padding=(2, 1))


def test_released_canvas():
    assert accepted_size((90, 160), RELEASED) == (90, 160)
    canvas = fit((256, 256), (720, 1280), RELEASED)
    assert (canvas.size, canvas.whole, canvas.corner) == ((720, 720), (720, 1280), (0, 280))


def test_accepted_heights_are_eight_n_minus_fourteen():
    heights = {accepted_size((h, 8), RELEASED)[0] for h in range(19, 91)}
    assert heights == {26, 34, 42, 50, 58, 66, 74, 82, 90}


@pytest.mark.parametrize('padding', [(2, 1), (1, 1)])
@pytest.mark.parametrize('size', [(10, 8), (17, 15)])
def test_the_unet_gives_accepted_sizes_back(padding, size):
    config = UNetConfig(
        (4, 4, 4), (False,) * 3, blocks=1, head_size=4, input_heads=1, context_width=4, groups=2, padding=padding
    )
    rows, columns = accepted_size(size, config)
    network = build.network(UNet3D, config)
    # only the middle has a cross-attention
    x, context = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 2, rows, columns, 4), (1, 3, 4)))
    out = jax.eval_shape(
        lambda p, x, c: network(p, x, jnp.zeros(1), network(p, c, method='keys_values')), network.abstract, x, context
    )
    assert out.shape == x.shape
    assert rows - size[0] < 4 and columns - size[1] < 4


@pytest.mark.parametrize('video', [(256, 256), (144, 176), (576, 768), (272, 640), (40, 30), (1080, 1920), (9, 300)])
@pytest.mark.parametrize('box', [(720, 1280), (256, 256), (208, 256)])
def test_the_aspect_stays_and_the_video_touches_the_box(video, box):
    canvas = fit(video, box, RELEASED)
    assert all(size <= whole for size, whole in zip(canvas.size, canvas.whole))
    assert canvas.size[0] == box[0] or canvas.size[1] == box[1]
    tolerance = 0.51 / min(canvas.size)
    assert canvas.size[0] / canvas.size[1] == pytest.approx(video[0] / video[1], rel=2 * tolerance)


@pytest.mark.parametrize('profile', ['paper', 'release'])
@pytest.mark.parametrize('video', [(12, 20), (20, 12)])
def test_a_video_on_a_canvas_is_cropped_back_and_the_rest_is_black(profile, video):
    canvas = fit(video, (80, 80), UNetConfig((4, 4), (False, False), padding=(2, 1)))
    frames = jax.random.uniform(jax.random.key(0), (2, 3, *video, 3), minval=-0.5)
    placed = to_canvas(frames, canvas, profile)
    assert placed.shape == (2, 3, *canvas.whole, 3)
    video = crop(placed, canvas)
    assert video.shape == (2, 3, *canvas.size, 3) and video.min() > -0.75
    assert (placed == -1).sum() == placed.size - video.size


def test_the_paper_resizes_bilinearly():
    pixels = np.random.default_rng(0).uniform(-1, 1, (16, 16)).astype(np.float32)
    pillow = np.asarray(Image.fromarray(pixels).resize((48, 48), Image.Resampling.BILINEAR))
    canvas = fit((16, 16), (48, 48), UNetConfig((4,), (False,)))
    frames = np.repeat(pixels[..., None], 3, -1)
    ours = crop(to_canvas(frames, canvas, 'paper'), canvas)
    np.testing.assert_allclose(ours, np.repeat(pillow[..., None], 3, -1), atol=1e-5)
    assert np.abs(ours - crop(to_canvas(frames, canvas, 'release'), canvas)).max() > 0.1


def test_the_release_resizes_like_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pillow = np.asarray(Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC), np.float32)
    canvas = fit((16, 16), (48, 48), UNetConfig((4,), (False,)))
    ours = (crop(to_canvas(pixels / np.float32(127.5) - 1, canvas, 'release'), canvas) + 1) * 127.5
    # sometimes a value is rounded the other way, since Pillow's weights are integers
    assert np.abs(ours - pillow).max() < 1.5 and np.abs(ours - pillow).mean() < 0.01


def test_sizes_without_pixels_are_refused():
    with pytest.raises(ValueError, match=r'at least 1 pixel, not \(0, 8\)'):
        fit((0, 8), (720, 1280), RELEASED)
