"""The configs of the stages, for tests of several folders."""

from pathlib import Path

from st2v_jax.training.config_files import load_config

CONFIGS = Path(__file__).parents[1] / 'configs'
STAGES = ('autoencoder', 'clip', 'video_ldm', 'cam', 'apm', 'refiner_vae', 'refiner')
ABLATIONS = ('no_apm', 'add_cond', 'conc_cond')


def stage_config(stage, size='tiny', **overrides):
    """The ConfigDict of a stage; overrides are strings, as on the command line."""
    return load_config(f'{CONFIGS / stage}.py:{size}', overrides)[0]
