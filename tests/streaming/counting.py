"""A stand-in for the networks: a video that counts, so that each frame is known."""

import jax.numpy as jnp

from st2v_jax.diffusion.schedule import DiffusionConfig, noise_levels
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.system import Prompt, System
from st2v_jax.streaming.settings import SampleSettings

CONFIG = ModelConfig(frame_size=(16, 16), diffusion=DiffusionConfig(prediction='v', zero_terminal_snr=True))
STEP = 0.005
SETTINGS = SampleSettings(steps=2, first_steps=2)
PARAMS = {name: {} for name in ('vae', 'text', 'image', 'unet', 'cam', 'apm')}


def autoencoder(params, latents, method):
    """The autoencoder: latents [n, h, w, 4] are pixels in small, with a fourth channel of zeros."""
    if method == 'encode':
        small = latents[:, ::8, ::8]
        return jnp.concatenate([small, jnp.zeros_like(small[..., :1])], -1), None
    return jnp.repeat(jnp.repeat(latents[..., :3], 8, 1), 8, 2)


class Counter:
    """Predicts the v of a video that counts: each frame is STEP brighter than the one before it.

    It starts at the text's value and goes on from the last conditioning frame. `tint` adds the anchor's value.
    """

    def __init__(self, tint=0.0):
        self.tint = tint
        self.batches = []

    def __call__(self, params, x, t=None, condition=None, *, method='__call__', **kwargs):
        if method == 'anchor_tokens':
            return x[:, None]
        if method == 'condition':
            return self.condition(x, t, condition, **kwargs)
        last, tint = condition
        x, t = self.branches(x, t, last)
        self.batches.append(len(x))
        frame = last[:, None] + STEP * jnp.arange(1, x.shape[1] + 1)
        x0 = CONFIG.scale_factor * (frame + tint[:, None])[..., None, None, None] * jnp.ones_like(x)
        alpha, sigma = (
            jnp.asarray(leaf, x.dtype)[t][:, None, None, None, None] for leaf in noise_levels(CONFIG.diffusion)[:2]
        )
        return (alpha * x - x0) / sigma

    def branches(self, x, t, condition):
        return (jnp.concatenate([a] * (len(condition) // len(x))) for a in (x, t))

    def condition(self, text, frames, anchor, texts):
        if frames is None:
            return text[:, 0, 0] - STEP, jnp.zeros(len(text))
        # the memory frames are generated again first: the chunk starts at the oldest of them
        last = jnp.tile(frames[:, 0].mean((1, 2, 3)) - STEP, len(text) // len(frames))
        return last, self.tint * anchor[:, 0, 0]


def image(params, images):
    return images.mean((1, 2))


def stand_in(tint=0.0):
    return System(CONFIG, autoencoder, None, image, Counter(tint))


COUNTING = stand_in()


def prompt_of(*values):
    text = jnp.array(values, jnp.float32)[:, None, None] * jnp.ones((1, 77, 4))
    return Prompt(text, text, jnp.zeros((len(values), 3)))
