"""What a model in training can draw: a few videos side by side, through the ordinary streaming sampler."""

import jax
import numpy as np
from einops import rearrange

from st2v_jax.models import build
from st2v_jax.models.system import system
from st2v_jax.open_model import on_device
from st2v_jax.streaming.generate import Model, generate
from st2v_jax.video_io import VideoWriter, to_uint8
from st2v_jax.weights.layout import streaming

FPS = 8
SHOWN = 8  # frames of each video in a picture


def write(settings, path, params, model, tokenizer, dtype):
    """Writes one video of all prompts side by side to `path`, and returns [H, W, 3] uint8: a row of frames for each.

    settings: prompts, frames, steps. params: of the networks that there are, on the host; without CAM a video is one
    chunk long, and an APM that is yet to come has no effect.
    """
    if 'cam' in params and 'apm' not in params and model.apm is not None:
        params = {**params, 'apm': build.init(jax.random.key(0), build.denoiser(model))['apm']}
    params = {name: tree for name, tree in params.items() if name in streaming(model)}
    params = jax.tree.map(on_device(dtype), params)
    sampler = Model(model, tokenizer, params, system(model, dtype))
    frames = min(settings.frames, sampler.max_frames)
    made = generate(sampler, list(settings.prompts), frames, settings=sampler.settings(steps=settings.steps))
    videos = to_uint8(np.concatenate(list(made), axis=1))
    with VideoWriter(path, FPS, (videos.shape[2], videos.shape[0] * videos.shape[3])) as video:
        video.write(rearrange(videos, 'b f h w c -> f h (b w) c'))
    shown = videos[:, np.linspace(0, frames - 1, SHOWN).round().astype(int)]
    return rearrange(shown, 'b f h w c -> (b h) (f w) c')
