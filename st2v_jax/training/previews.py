"""Previews of a model in training: a few videos side by side, made by the ordinary streaming sampler."""

from pathlib import Path

import jax
import numpy as np
from einops import rearrange
from ml_collections import ConfigDict

from st2v_jax.models import build
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.system import system
from st2v_jax.open_model import on_device
from st2v_jax.storage.buckets import made_here
from st2v_jax.streaming.generate import Model, generate
from st2v_jax.tokenizer import Tokenizer
from st2v_jax.training.objective import Params
from st2v_jax.video_io import VideoWriter, to_uint8
from st2v_jax.weights.layout import streaming

FPS = 8
SHOWN = 8  # frames of each video in the picture


def write(
    settings: ConfigDict, path: Path, params: Params, model: ModelConfig, tokenizer: Tokenizer, dtype: str
) -> np.ndarray:
    """Writes one video with the videos of all prompts side by side.

    Args:
      settings: has prompts, frames and steps.
      path: of the video.
      params: of the networks trained so far, on the host. Without CAM a video has one chunk; an APM that is not trained
        yet has no effect.
      model: their config.
      tokenizer: of the text tower.
      dtype: that the networks compute in.

    Returns:
      A picture uint8 [H, W, 3] with a row of frames for each video.
    """
    if 'cam' in params and 'apm' not in params and model.apm is not None:
        params = {**params, 'apm': build.init(jax.random.key(0), build.denoiser(model))['apm']}
    params = {name: tree for name, tree in params.items() if name in streaming(model)}
    params = build.with_biases(jax.tree.map(on_device(dtype), params), dtype)
    sampler = Model(model, tokenizer, params, system(model, dtype))
    frames = min(settings.frames, sampler.max_frames)
    made = generate(sampler, list(settings.prompts), frames, settings=sampler.settings(steps=settings.steps))
    videos = to_uint8(np.concatenate(list(made), axis=1))
    size = videos.shape[2], videos.shape[0] * videos.shape[3]
    with made_here(path) as file, VideoWriter(file, FPS, size) as video:
        video.write(rearrange(videos, 'b f h w c -> f h (b w) c'))
    shown = videos[:, np.linspace(0, frames - 1, SHOWN).round().astype(int)]
    return rearrange(shown, 'b f h w c -> (b h) (f w) c')
