"""StreamingT2V in JAX: a long video from one sentence.

    from st2v_jax import VideoWriter, generate, load

    model = load()                                          # the model that ships with the package
    with VideoWriter('ball.mp4', fps=8, size=(128, 128)) as video:
        for frames in generate(model, 'a red ball bounces over a meadow', num_frames=240):
            video.write(frames)                             # [n, H, W, 3] in [-1, 1], as they come

What is where:

    load, generate, Model        a prompt to frames                  st2v_jax.streaming.generate
    stream, StreamState          chunk by chunk, with the state      st2v_jax.streaming.generate
    Session, Recipe              a video as chunks in a folder       st2v_jax.sessions.session
    load_enhancer, enhance,
    Enhancer                     frames to larger, sharper ones      st2v_jax.refinement.enhancer
    PromptSchedule               prompts that change on the way      st2v_jax.streaming.prompt_schedule
    SampleSettings               how a video is sampled              st2v_jax.streaming.settings
    RefineSettings               overlapping chunks, blended         st2v_jax.refinement.sdedit
    load_weights, save_weights   folders of parameters               st2v_jax.open_model, st2v_jax.weights.folder
    Tokenizer                    prompts to token ids                st2v_jax.tokenizer
    VideoWriter, VideoReader,
    read_video, read_metadata    files                               st2v_jax.video_io
    ModelConfig                  sizes of a model                    st2v_jax.models.build
    world                        what the shipped model learned      st2v_jax.data.world
"""

import importlib

__version__ = '0.1.0'

# Loaded on first access, so that `import st2v_jax` and `--help` of the commands are quick
_WHERE = {
    'Enhancer': 'refinement.enhancer:Enhancer',
    'Model': 'streaming.generate:Model',
    'ModelConfig': 'models.build:ModelConfig',
    'PromptSchedule': 'streaming.prompt_schedule:PromptSchedule',
    'RefineSettings': 'refinement.sdedit:RefineSettings',
    'Session': 'sessions.session:Session',
    'StreamState': 'streaming.stream:StreamState',
    'Recipe': 'sessions.branches:Recipe',
    'SampleSettings': 'streaming.settings:SampleSettings',
    'Tokenizer': 'tokenizer:Tokenizer',
    'VideoReader': 'video_io:VideoReader',
    'VideoWriter': 'video_io:VideoWriter',
    'WeightsError': 'errors:WeightsError',
    'enhance': 'refinement.enhancer:enhance',
    'generate': 'streaming.generate:generate',
    'load': 'streaming.generate:load',
    'load_enhancer': 'refinement.enhancer:load_enhancer',
    'load_weights': 'open_model:load_weights',
    'read_metadata': 'video_io:read_metadata',
    'read_video': 'video_io:read_video',
    'save_weights': 'weights.folder:save',
    'stream': 'streaming.generate:stream',
    'world': 'data.world:',
}
__all__ = sorted(_WHERE)


def __getattr__(name):
    if name not in _WHERE:
        raise AttributeError(f'st2v_jax has no {name}; it has {", ".join(__all__)}')
    place, attribute = _WHERE[name].split(':')
    module = importlib.import_module(f'st2v_jax.{place}')
    return getattr(module, attribute) if attribute else module


def __dir__():
    return sorted({*globals(), *__all__})
